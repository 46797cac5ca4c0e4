//! One line a candidate over all sites.

use std::collections::BTreeMap;

use mantissa_metrics::Estimate;

use super::{SiteOutcome, median};
use crate::site::{Pass, PassNumerics};

/// What a pair of numerics does, over sites.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The pair.
    pub numerics: PassNumerics,
    /// The median backward errors of each pass.
    pub backward_error: BTreeMap<Pass, Spread>,
    /// The smallest cosine of a weight's gradient.
    pub gradient_cosine: Option<Worst<Estimate>>,
    /// The smallest cosine of the update that Adam's first step makes of it.
    pub update_cosine: Option<Worst<Estimate>>,
}

/// How a metric lies over sites.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The median over sites: of an even number the larger of the middle two, so that it is one that occurs.
    pub median: f64,
    /// The largest.
    pub worst: Worst<f64>,
}

/// The worst value of a metric, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst<T> {
    /// The value.
    pub value: T,
    /// The site.
    pub site: String,
}

impl Summary {
    /// The worst backward error over all sites and passes, infinite where none is known.
    pub fn worst(&self) -> f64 {
        let worst = self
            .backward_error
            .values()
            .map(|spread| spread.worst.value);
        worst.reduce(f64::max).unwrap_or(f64::INFINITY)
    }
}

/// Each pair over all sites, in the order in which they were asked for. Passes whose samples say nothing of a pair, such
/// as zeros, are left out.
pub fn summarize(sites: &[SiteOutcome]) -> Vec<Summary> {
    let Some(pairs) = sites
        .iter()
        .flat_map(|site| &site.passes)
        .map(|pass| &pass.pairs)
        .next()
    else {
        return Vec::new();
    };
    (0..pairs.len())
        .map(|index| summary(index, pairs[index].numerics, sites))
        .collect()
}

fn summary(index: usize, numerics: PassNumerics, sites: &[SiteOutcome]) -> Summary {
    let mut errors: BTreeMap<Pass, Vec<Worst<f64>>> = BTreeMap::new();
    let (mut gradient_cosine, mut update_cosine) = (None, None);
    for site in sites {
        for outcome in &site.passes {
            let error = &outcome.pairs[index];
            if error.product.is_some() {
                errors.entry(outcome.pass).or_default().push(Worst {
                    value: median(error),
                    site: site.site.name.clone(),
                });
            }
            if let Some(signed) = error
                .signed
                .filter(|_| site.is_weight_gradient(outcome.pass))
            {
                keep_smaller(&mut gradient_cosine, signed.cosine, &site.site.name);
                keep_smaller(&mut update_cosine, signed.sign_cosine, &site.site.name);
            }
        }
    }
    let backward_error = errors.into_iter().map(|(pass, mut errors)| {
        errors.sort_by(|a, b| a.value.total_cmp(&b.value));
        let median = errors[errors.len() / 2].value;
        let worst = errors.pop().expect("an entry has at least one error");
        (pass, Spread { median, worst })
    });
    Summary {
        numerics,
        backward_error: backward_error.collect(),
        gradient_cosine,
        update_cosine,
    }
}

fn keep_smaller(kept: &mut Option<Worst<Estimate>>, found: Option<Estimate>, site: &str) {
    let Some(value) = found else { return };
    if kept
        .as_ref()
        .is_none_or(|kept| value.value < kept.value.value)
    {
        *kept = Some(Worst {
            value,
            site: site.to_string(),
        });
    }
}
