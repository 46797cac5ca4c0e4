//! What a plan is predicted to cost and to lose, from a profile.

use rayon::prelude::*;

use crate::assess::{MeasuredPass, Step};
use crate::cost::{ProductShape, Target};
use crate::evaluate::PairError;
use crate::loss_scaling::LossScaling;
use crate::plan::{Plan, PlanError};
use crate::policy::Policy;
use crate::profile::{Profile, SiteProfile};
use crate::quality::{QualityError, QualityLoss};
use crate::site::{Pass, PassNumerics, Site};

/// What a plan is predicted to cost and to lose.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The cost of all measured products of a step, in units of what they cost in f32 on the same target.
    pub cost: f64,
    /// The predicted quality loss of a step, over all passes that have one.
    pub quality_loss: QualityLoss,
    /// The loss scale that gradients were evaluated with: 1, or where the plan's loss scaling is expected to settle.
    pub loss_scale: f64,
    /// Each measured pass, in forward order.
    pub passes: Vec<PassPrediction>,
}

/// What one pass contributes.
#[derive(Clone, Debug)]
pub struct PassPrediction {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// The numerics of its operands.
    pub numerics: PassNumerics,
    /// The length of the contraction.
    pub depth: usize,
    /// Its cost, in units of this product in f32.
    pub cost: f64,
    /// This product's share of what all products cost in f32.
    pub cost_share: f64,
    /// Its predicted quality loss; `None` where the site's gradients were not measured.
    pub quality_loss: Option<QualityLoss>,
    /// What the numerics do to the product.
    pub error: PairError,
}

/// Why nothing can be predicted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// There is nothing to predict from.
    #[error("the profile holds no measurement; measure at least one training step")]
    Empty,
    /// The profile is of another model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Noise cannot be weighed.
    #[error(transparent)]
    Quality(#[from] QualityError),
}

/// Predicts cost and quality loss of a plan from a profile of the same model. Of the policy, the target, the number of
/// outputs and the seed are read.
///
/// # Errors
/// If the plan is of another model, or the profile holds nothing to predict from.
pub fn predict(
    plan: &Plan,
    profile: &Profile,
    policy: &Policy,
) -> Result<Prediction, PredictError> {
    check_model(plan, profile)?;
    let loss_scale = loss_scale(plan, profile);
    let step = Step::new(profile, policy, loss_scale);
    if let Err(error) = step.quality {
        return Err(error.into());
    }
    let passes: Vec<PassPrediction> = step
        .passes()
        .par_iter()
        .map(|measured| {
            let site = plan.site(measured.site_name())?;
            Ok(PassPrediction::of(
                measured,
                *site.numerics.pass(measured.pass),
            ))
        })
        .collect::<Result<_, PlanError>>()?;
    let losses = passes.iter().filter_map(|pass| pass.quality_loss);
    Ok(Prediction {
        cost: passes.iter().map(|pass| pass.cost * pass.cost_share).sum(),
        quality_loss: losses.fold(QualityLoss::ZERO, |sum, loss| sum.plus(&loss)),
        loss_scale,
        passes,
    })
}

/// Predicts the cost of a plan alone: [`Prediction::cost`] on this target, without computing a product.
///
/// # Errors
/// If the plan is of another model, or the profile holds nothing to predict from.
pub fn predict_cost(plan: &Plan, profile: &Profile, target: &Target) -> Result<f64, PredictError> {
    check_model(plan, profile)?;
    let (mut cost, mut in_full_precision) = (0.0, 0.0);
    for measured in &profile.sites {
        let numerics = &plan.site(&measured.site.name)?.numerics;
        for (&pass, measured) in &measured.passes {
            let shape = ProductShape::of(measured);
            let of = |pair| shape.multiplications() * target.cost_of(pair, &shape);
            cost += of(numerics.pass(pass));
            in_full_precision += of(&PassNumerics::FP32);
        }
    }
    Ok(cost / in_full_precision)
}

fn check_model(plan: &Plan, profile: &Profile) -> Result<(), PredictError> {
    if profile.steps().is_empty() {
        return Err(PredictError::Empty);
    }
    let sites = profile.sites.iter();
    let sites: Vec<Site> = sites.map(|measured| measured.site.clone()).collect();
    Ok(plan.check_sites(&sites)?)
}

impl PassPrediction {
    fn of(measured: &MeasuredPass<'_>, numerics: PassNumerics) -> Self {
        let assessed = measured.assess(numerics);
        let cost_share = measured.cost_share();
        PassPrediction {
            site: measured.site_name().to_string(),
            pass: measured.pass,
            numerics,
            depth: measured.shape.depth,
            cost: assessed.step_cost / cost_share,
            cost_share,
            quality_loss: assessed.loss,
            error: assessed.error,
        }
    }
}

/// Where the plan's loss scaling is expected to settle: at its first scale, or as far below as the largest gradient without
/// a scale of its own asks for, in powers of two.
pub(crate) fn loss_scale(plan: &Plan, profile: &Profile) -> f64 {
    let (init, min) = match &plan.loss_scaling {
        LossScaling::None => return 1.0,
        LossScaling::Constant(scale) => return f64::from(*scale),
        LossScaling::Dynamic(settings) => (settings.init_scale, settings.min_scale),
        LossScaling::Enhanced(settings) => {
            (settings.dynamic.init_scale, settings.dynamic.min_scale)
        }
        LossScaling::LogMax(settings) => (settings.init_scale, settings.min_scale),
        LossScaling::UnderflowAware(settings) => (settings.max_scale, settings.min_scale),
    };
    let room = profile
        .sites
        .iter()
        .flat_map(|measured| gradient_room(plan, measured))
        .fold(f64::INFINITY, f64::min);
    let mut scale = f64::from(init);
    while scale > room && scale > f64::from(min) {
        scale /= 2.0;
    }
    scale
}

/// What the gradients of a site may be multiplied with before the largest overflows, in each pass where they have no scale.
fn gradient_room(plan: &Plan, measured: &SiteProfile) -> Vec<f64> {
    let Ok(planned) = plan.site(&measured.site.name) else {
        return Vec::new();
    };
    let passes = [(Pass::GradLhs, 0), (Pass::GradRhs, 1)];
    let room = passes.into_iter().filter_map(|(pass, side)| {
        let profiled = measured.passes.get(&pass)?;
        let (statistics, numerics) = if side == 0 {
            (&profiled.left, planned.numerics.pass(pass).left)
        } else {
            (&profiled.right, planned.numerics.pass(pass).right)
        };
        let unscaled = !numerics.granularity.is_scaled() && statistics.amax > 0.0;
        unscaled
            .then(|| f64::from(numerics.format.overflow_threshold()) / f64::from(statistics.amax))
    });
    room.collect()
}
