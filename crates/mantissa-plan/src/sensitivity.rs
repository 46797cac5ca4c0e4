//! Which passes pay for their numerics: each one's part of the quality loss, and what another pair would do there alone.

use rayon::prelude::*;

use crate::assess::{Assessed, MeasuredPass, Step};
use crate::choose::next;
use crate::evidence::{Promotion, significant};
use crate::plan::{Plan, PlanError};
use crate::policy::Policy;
use crate::predict::{PredictError, loss_scale};
use crate::profile::Profile;
use crate::quality::QualityLoss;
use crate::site::{Pass, PassNumerics, Site};

/// One pass of a plan, everything else left as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// Its numerics in the plan.
    pub numerics: PassNumerics,
    /// Its predicted quality loss, which is what the plan would gain if the pass were computed in f32; `None` where its site's
    /// gradients were not measured.
    pub quality_loss: Option<QualityLoss>,
    /// The safer pair that gains most for what it costs.
    pub promotion: Option<Trade>,
    /// The cheaper pair that loses least for what it saves.
    pub demotion: Option<Trade>,
    /// Whether the promotion pays for itself: demoting one of the other passes would save as much time at a smaller loss.
    pub pays: bool,
}

/// Another pair for one pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    /// The pair.
    pub numerics: PassNumerics,
    /// How the predicted quality loss changes, in shares of a step's progress; negative is better.
    pub quality_loss: f64,
    /// How the cost changes, as a share of the cost of the step's products in f32; negative is cheaper.
    pub cost: f64,
}

impl Trade {
    fn between(from: &Assessed, to: &Assessed) -> Trade {
        Trade {
            numerics: to.numerics(),
            quality_loss: to.loss_estimate() - from.loss_estimate(),
            cost: to.step_cost - from.step_cost,
        }
    }

    /// Quality for cost.
    fn rate(&self) -> f64 {
        (self.quality_loss / self.cost).abs()
    }
}

/// Leaves out one pass of a plan after the other: what it loses, what promoting it alone would gain and cost, and what
/// demoting it alone would lose and save. Candidates are those of the policy that clear its rules for operands.
///
/// # Errors
/// If the plan is of another model, or the profile holds nothing to predict from.
pub fn sensitivity(
    plan: &Plan,
    profile: &Profile,
    policy: &Policy,
) -> Result<Vec<Sensitivity>, PredictError> {
    if profile.steps().is_empty() {
        return Err(PredictError::Empty);
    }
    let sites: Vec<Site> = profile.sites.iter().map(|site| site.site.clone()).collect();
    plan.check_sites(&sites)?;
    let step = Step::new(profile, policy, loss_scale(plan, profile));
    if let Err(error) = step.quality {
        return Err(error.into());
    }
    let look = |measured: &MeasuredPass<'_>| {
        let site = plan.site(measured.site_name())?;
        Ok(alone(policy, measured, *site.numerics.pass(measured.pass)))
    };
    let mut found: Vec<Sensitivity> = step
        .passes()
        .par_iter()
        .map(look)
        .collect::<Result<_, PlanError>>()?;
    let exchange: Vec<f64> = found
        .iter()
        .map(|pass| {
            pass.demotion
                .map_or(f64::INFINITY, |demotion| demotion.rate())
        })
        .collect();
    for (index, pass) in found.iter_mut().enumerate() {
        let others = exchange
            .iter()
            .enumerate()
            .filter(|&(other, _)| other != index);
        let cheapest = others.fold(f64::INFINITY, |least, (_, &rate)| least.min(rate));
        pass.pays = pass
            .promotion
            .is_some_and(|promotion| promotion.rate() > cheapest);
    }
    Ok(found)
}

fn alone(policy: &Policy, measured: &MeasuredPass<'_>, numerics: PassNumerics) -> Sensitivity {
    let (chosen, pairs) = measured.assess_with(|assessor| {
        let pairs = policy.candidates.pairs(measured.pass);
        let pairs: Vec<Assessed> = pairs
            .into_iter()
            .map(|pair| assessor.assess(pair))
            .collect();
        (assessor.assess(numerics), pairs)
    });
    let usable: Vec<Assessed> = pairs
        .into_iter()
        .filter(|pair| pair.numerics().is_fp32() || !pair.is_beyond)
        .filter(|pair| pair.loss_estimate().is_finite())
        .collect();
    let (safer, cheaper) = next(&usable, &chosen);
    Sensitivity {
        site: measured.site_name().to_string(),
        pass: measured.pass,
        numerics,
        quality_loss: chosen.loss,
        promotion: safer.map(|pair| Trade::between(&chosen, pair)),
        demotion: cheaper.map(|pair| Trade::between(&chosen, pair)),
        pays: false,
    }
}

impl Plan {
    /// Adds to the evidence of each pass what promoting it alone would gain and cost.
    pub fn note_sensitivity(&mut self, sensitivity: &[Sensitivity]) {
        for site in &mut self.sites {
            for (&pass, evidence) in &mut site.evidence {
                let found = sensitivity
                    .iter()
                    .find(|found| found.site == site.name && found.pass == pass);
                evidence.promotion = found.and_then(|found| {
                    let promotion = found.promotion?;
                    Some(Promotion {
                        numerics: promotion.numerics.by_role(pass),
                        gain: significant(-promotion.quality_loss),
                        cost: significant(promotion.cost),
                        pays: found.pays,
                    })
                });
            }
        }
    }
}
