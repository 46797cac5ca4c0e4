//! How the values of measured tensors are distributed.

use std::collections::BTreeMap;

use mantissa::plan::{Pass, PassProfile, Profile, Role, SiteProfile};
use mantissa_metrics::fit_student_t;
use rayon::prelude::*;
use serde::Serialize;

use super::short;

/// Bins of a distribution, odd so that one of them has zero in its middle.
const BINS: usize = 121;
/// The most elements that tails are fitted to: their standard error at ν = 5 is about 5 %.
const FITTED: usize = 2048;

/// One of a site's three tensors.
#[derive(Clone, Debug, Serialize)]
pub struct Tensor {
    /// The site.
    pub site: String,
    /// `lhs`, `rhs` or `grad`.
    pub role: Role,
    /// The measured passes that read it.
    pub passes: Vec<Pass>,
    /// Elements counted.
    pub count: u64,
    /// Exact zeros among them.
    pub zeros: u64,
    /// Largest finite magnitude.
    pub amax: f32,
    /// Elements by floor(log2 |x|).
    pub exponents: Vec<(i32, u64)>,
    /// Sampled elements by value; absent where none was kept.
    pub values: Option<Values>,
}

/// A histogram of values over equal bins from `-reach` to `reach`, and the Student-t that fits them best.
#[derive(Clone, Debug, Serialize)]
pub struct Values {
    /// The largest sampled magnitude.
    pub reach: f64,
    /// Elements in each bin.
    pub counts: Vec<u64>,
    /// Degrees of freedom; absent where no distribution fits, as for a constant.
    pub nu: Option<f64>,
    /// Centre of the fit.
    pub location: Option<f64>,
    /// Scale of the fit.
    pub scale: Option<f64>,
}

/// Every tensor of a profile, in model order.
pub fn tensors(profile: &Profile) -> Vec<Tensor> {
    profile.sites.par_iter().flat_map_iter(of_site).collect()
}

fn of_site(site: &SiteProfile) -> Vec<Tensor> {
    let mut tensors: BTreeMap<Role, Tensor> = BTreeMap::new();
    for (&pass, measured) in &site.passes {
        for (side, role) in pass.operands().into_iter().enumerate() {
            tensors
                .entry(role)
                .or_insert_with(|| Tensor::of(&site.site.name, role, measured, side))
                .passes
                .push(pass);
        }
    }
    tensors.into_values().collect()
}

impl Tensor {
    fn of(site: &str, role: Role, measured: &PassProfile, side: usize) -> Self {
        let statistics = [&measured.left, &measured.right][side];
        let samples = measured.samples.iter();
        let samples: Vec<&[f32]> = samples
            .map(|sample| [&sample.left[..], &sample.right[..]][side])
            .collect();
        Self {
            site: site.to_owned(),
            role,
            passes: Vec::new(),
            count: statistics.moments.total(),
            zeros: statistics.moments.zeros,
            amax: statistics.amax,
            exponents: statistics.exponents.iter().collect(),
            values: Values::of(&samples),
        }
    }
}

impl Values {
    fn of(samples: &[&[f32]]) -> Option<Self> {
        let finite = || samples.iter().copied().flatten().filter(|x| x.is_finite());
        let reach = finite().fold(0.0f32, |most, x| most.max(x.abs()));
        if reach == 0.0 {
            return None;
        }
        let mut counts = vec![0; BINS];
        for x in finite() {
            let place = (f64::from(*x) / f64::from(reach) + 1.0) / 2.0 * BINS as f64;
            counts[(place as usize).min(BINS - 1)] += 1;
        }
        let fit = fit_student_t(&thinned(samples, FITTED));
        Some(Self {
            reach: f64::from(reach),
            counts,
            nu: fit.and_then(|fit| short(fit.nu)),
            location: fit.and_then(|fit| short(fit.location)),
            scale: fit.and_then(|fit| short(fit.scale)),
        })
    }
}

/// About `most` elements at a stride that is no power of two, which rows often are.
fn thinned(samples: &[&[f32]], most: usize) -> Vec<f32> {
    let all: usize = samples.iter().map(|sample| sample.len()).sum();
    let stride = (all / most).max(1) | 1;
    let elements = samples.iter().copied().flatten().copied();
    elements.step_by(stride).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bins_around_them() {
        let values = Values::of(&[&[0.0, 1.0, -2.0, 2.0], &[f32::NAN, 1e-9]]).unwrap();
        assert_eq!(values.reach, 2.0);
        assert_eq!(values.counts[BINS / 2], 2);
        assert_eq!((values.counts[0], values.counts[BINS - 1]), (1, 1));
        assert_eq!(values.counts.iter().sum::<u64>(), 5);
        assert_eq!(values.nu, None);
        assert!(Values::of(&[&[0.0; 8]]).is_none());
    }
}
