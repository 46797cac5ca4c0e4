//! The choice of a plan: by thresholds, pass by pass, or within a budget, for all passes together.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::assess::{Assessed, Assessor, MeasuredPass, Step};
use crate::evaluate::{OperandError, PairError};
use crate::evidence::{Alternative, Evidence, OperandEvidence, significant};
use crate::knapsack::{self, Infeasible, Item};
use crate::loss_scaling::LossScaling;
use crate::plan::{Plan, PlanError, PlanPrediction, PlannedSite, Source};
use crate::policy::{Check, Choice, Policy, backward_error_high};
use crate::predict::predict;
use crate::profile::Profile;
use crate::quality::QualityError;
use crate::site::{Pass, PassNumerics, Role, Site, SiteNumerics};
use crate::warning::unscaled_gradient;

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// There is nothing to choose from.
    #[error("the profile holds no measurement; measure at least one training step")]
    Empty,
    /// The profile names a site twice, or the previous plan is of another model.
    #[error("the profile cannot become a plan: {0}")]
    Plan(#[from] PlanError),
    /// A budget needs predicted quality losses.
    #[error("no budget can be kept: {0}")]
    Quality(#[from] QualityError),
    /// The budget is not one.
    #[error("the budget must be a share of a step's progress, at least 0 (0.01 is 1 %), not {0}")]
    NoBudget(f64),
    /// None of the candidates can be used for a pass.
    #[error(
        "no candidate can be used for {site}, {pass}: {reason}; add safer candidates such as fp32, or widen the policy's bounds"
    )]
    NoCandidate {
        /// The site.
        site: String,
        /// The pass.
        pass: Pass,
        /// What keeps the one that comes nearest from it.
        reason: String,
    },
    /// The candidates lose more than the budget whatever is chosen.
    #[error(
        "the budget of {budget:.3e} of a step's progress cannot be kept: the safest of the candidates lose {least:.3e}, with 95 % \
         confidence; raise the budget to that, or add safer candidates such as fp32"
    )]
    Infeasible {
        /// The budget.
        budget: f64,
        /// The least that can be reached.
        least: f64,
    },
}

/// Chooses numerics for every pass of every site of a profile.
///
/// By thresholds: the cheapest candidate pair whose metrics clear the policy's thresholds with confidence, and among pairs
/// of equal cost the one with the smallest backward error. Within a budget: the cheapest pairs that together stay within
/// it, by integer program.
///
/// Embeddings multiply nothing and passes that were not measured tell nothing; they stay in f32. The result depends on
/// the profile and the policy alone.
///
/// # Errors
/// If the profile holds nothing to choose from, or a budget cannot be kept.
pub fn choose(profile: &Profile, policy: &Policy) -> Result<Plan, ChooseError> {
    choose_after(profile, policy, None)
}

/// [`choose`], where a previous plan's decisions are kept unless they no longer hold or the new ones are cheaper by more
/// than [`Policy::hysteresis`].
///
/// A decision of thresholds is kept for its pass as long as no estimate is beyond its bound, though the confidence interval
/// may reach beyond it. A budget weighs all passes against each other, so that there the previous plan is kept as a whole.
///
/// # Errors
/// As [`choose`], and if the previous plan is of another model.
pub fn choose_after(
    profile: &Profile,
    policy: &Policy,
    previous: Option<&Plan>,
) -> Result<Plan, ChooseError> {
    if profile.steps().is_empty() {
        return Err(ChooseError::Empty);
    }
    if let Some(previous) = previous {
        let sites: Vec<Site> = profile.sites.iter().map(|site| site.site.clone()).collect();
        previous.check_sites(&sites)?;
    }
    let step = Step::new(profile, policy, 1.0);
    let decisions = match policy.choice {
        Choice::Thresholds => by_thresholds(&step, previous),
        Choice::Budget(budget) => within_budget(&step, budget, previous)?,
    };
    let mut sites: Vec<PlannedSite> = profile
        .sites
        .iter()
        .map(|measured| PlannedSite::unmeasured(&measured.site, SiteNumerics::FP32))
        .collect();
    for decision in decisions {
        let site = &mut sites[decision.site];
        *site.numerics.pass_mut(decision.pass) = decision.numerics;
        site.evidence.insert(decision.pass, decision.evidence);
    }
    let unscaled = |site: &PlannedSite| unscaled_gradient(&site.numerics).is_some();
    let loss_scaling = if sites.iter().any(unscaled) {
        LossScaling::dynamic()
    } else {
        LossScaling::None
    };
    let source = Source::Profile {
        target: policy.target.name.clone(),
        steps: profile.steps(),
    };
    let mut plan = Plan::new(source, loss_scaling, sites)?;
    // Without gradients there is no prediction, and the plan holds none.
    plan.prediction = predict(&plan, profile, policy)
        .ok()
        .map(|prediction| PlanPrediction {
            policy: policy.choice.name().to_string(),
            budget: match policy.choice {
                Choice::Thresholds => None,
                Choice::Budget(budget) => Some(budget),
            },
            cost: significant(prediction.cost),
            quality_loss: significant(prediction.quality_loss.estimate()),
            quality_loss_low: significant(prediction.quality_loss.low()),
            quality_loss_high: significant(prediction.quality_loss.high()),
        });
    Ok(plan)
}

/// What was decided for a pass.
struct Decision {
    site: usize,
    pass: Pass,
    numerics: PassNumerics,
    evidence: Evidence,
}

/// The numerics that a previous plan gives a pass.
fn decided_by(previous: Option<&Plan>, measured: &MeasuredPass<'_>) -> Option<PassNumerics> {
    let site = previous?.site(measured.site_name()).ok()?;
    Some(*site.numerics.pass(measured.pass))
}

fn by_thresholds(step: &Step<'_>, previous: Option<&Plan>) -> Vec<Decision> {
    let passes = step.passes();
    let decide = |measured: &MeasuredPass<'_>| {
        let before = decided_by(previous, measured);
        measured
            .assess_with(|assessor| cheapest_that_clears(step.policy, measured, assessor, before))
    };
    passes.par_iter().map(decide).collect()
}

fn cheapest_that_clears(
    policy: &Policy,
    measured: &MeasuredPass<'_>,
    assessor: &mut Assessor<'_, '_>,
    before: Option<PassNumerics>,
) -> Decision {
    let mut pairs: Vec<(f64, PassNumerics)> = policy
        .candidates
        .pairs(measured.pass)
        .into_iter()
        .map(|pair| (policy.target.cost_of(&pair, &measured.shape), pair))
        .collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));

    // Cheapest first, one group of equal cost after the other, until two pairs cleared or f32 did.
    let mut cleared: Vec<Assessed> = Vec::new();
    let mut failed: Vec<Assessed> = Vec::new();
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let mut clear_here = Vec::new();
        for &(_, pair) in group {
            let assessed = assessor.assess(pair);
            if assessed.clears() {
                clear_here.push(assessed);
            } else if cleared.is_empty() {
                failed.push(assessed);
            }
        }
        clear_here.sort_by(|a, b| a.median().total_cmp(&b.median()));
        cleared.extend(clear_here);
        let full_precision = cleared.iter().any(|pair| pair.numerics().is_fp32());
        if cleared.len() > 1 || full_precision {
            break;
        }
    }
    let mut cleared = cleared.into_iter();
    let mut chosen = cleared
        .next()
        .expect("f32 is always among the pairs and always clears");
    let mut runner_up = cleared.next().map(|second| {
        let reason = if second.cost > chosen.cost {
            "it clears the thresholds too, at a higher cost"
        } else {
            "it clears the thresholds at the same cost, with a larger backward error"
        };
        (second, reason.to_string())
    });
    if let Some(before) = before.filter(|&before| before != chosen.numerics()) {
        let kept = assessor.assess(before);
        if !kept.is_beyond && chosen.cost >= kept.cost * (1.0 - policy.hysteresis) {
            let reason = format!(
                "it clears the thresholds, but is not {:.0} % cheaper than what the previous plan decided",
                100.0 * policy.hysteresis
            );
            runner_up = Some((std::mem::replace(&mut chosen, kept), reason));
        }
    }
    let nearest_miss = failed
        .into_iter()
        .filter(|pair| pair.cost < chosen.cost && pair.numerics() != chosen.numerics())
        .min_by(|a, b| a.tightest.used().total_cmp(&b.tightest.used()));
    let nearest_miss = nearest_miss.map(|pair| {
        let reason = missed(&pair);
        (pair, reason)
    });
    decision(policy, measured, &chosen, runner_up, nearest_miss)
}

fn within_budget(
    step: &Step<'_>,
    budget: f64,
    previous: Option<&Plan>,
) -> Result<Vec<Decision>, ChooseError> {
    if !(budget.is_finite() && budget >= 0.0) {
        return Err(ChooseError::NoBudget(budget));
    }
    if let Err(error) = step.quality {
        return Err(error.into());
    }
    let passes = step.passes();
    let usable: Vec<Vec<Assessed>> = passes
        .par_iter()
        .map(|measured| usable_pairs(step.policy, measured))
        .collect::<Result<_, _>>()?;
    let groups: Vec<Vec<Item>> = usable
        .iter()
        .map(|pairs| {
            let item = |pair: &Assessed| Item {
                cost: pair.step_cost,
                loss: pair.loss_high(),
            };
            pairs.iter().map(item).collect()
        })
        .collect();
    let selection = knapsack::cheapest(&groups, budget)
        .map_err(|Infeasible { least }| ChooseError::Infeasible { budget, least })?;
    if let Some(kept) = previous.and_then(|previous| {
        let cost = knapsack::total(&groups, &selection).cost;
        kept_within(step.policy, budget, previous, &passes, cost)
    }) {
        let decide = |((measured, pairs), kept): ((_, &Vec<Assessed>), &Assessed)| {
            neighbours(step.policy, measured, pairs, kept)
        };
        let all = passes.par_iter().zip(&usable).zip(&kept);
        return Ok(all.map(decide).collect());
    }
    let chosen = passes.par_iter().zip(&usable).zip(selection);
    Ok(chosen
        .map(|((measured, pairs), place)| neighbours(step.policy, measured, pairs, &pairs[place]))
        .collect())
}

/// The candidates of a pass that clear the rules for operands and whose loss has a bound; f32 alone where the samples say
/// nothing.
fn usable_pairs(
    policy: &Policy,
    measured: &MeasuredPass<'_>,
) -> Result<Vec<Assessed>, ChooseError> {
    let pairs = policy.candidates.pairs_named(measured.pass);
    let (usable, unusable): (Vec<Assessed>, Vec<Assessed>) = measured.assess_with(|assessor| {
        pairs
            .into_iter()
            .map(|pair| assessor.assess(pair))
            .partition(|pair| pair.clears() && pair.loss_high().is_finite())
    });
    if !usable.is_empty() {
        return Ok(usable);
    }
    let says_something = |pair: &&Assessed| pair.loss_high().is_finite();
    let nearest = unusable
        .iter()
        .filter(says_something)
        .min_by(|a, b| a.tightest.used().total_cmp(&b.tightest.used()));
    match nearest {
        Some(nearest) => Err(ChooseError::NoCandidate {
            site: measured.site_name().to_string(),
            pass: measured.pass,
            reason: missed(nearest),
        }),
        None => Ok(vec![measured.assess(PassNumerics::FP32)]),
    }
}

/// The previous plan's pairs, if they still keep the budget and the rules and the new selection is not much cheaper.
fn kept_within(
    policy: &Policy,
    budget: f64,
    previous: &Plan,
    passes: &[MeasuredPass<'_>],
    new_cost: f64,
) -> Option<Vec<Assessed>> {
    let kept: Vec<Assessed> = passes
        .par_iter()
        .map(|measured| Some(measured.assess(decided_by(Some(previous), measured)?)))
        .collect::<Option<_>>()?;
    let cost: f64 = kept.iter().map(|pair| pair.step_cost).sum();
    let loss: f64 = kept.iter().map(Assessed::loss_estimate).sum();
    let holds = loss <= budget && !kept.iter().any(|pair| pair.is_beyond);
    (holds && new_cost >= cost * (1.0 - policy.hysteresis)).then_some(kept)
}

/// A decision within a budget, with the next safer and the next cheaper pair.
fn neighbours(
    policy: &Policy,
    measured: &MeasuredPass<'_>,
    pairs: &[Assessed],
    chosen: &Assessed,
) -> Decision {
    let (safer, cheaper) = next(pairs, chosen);
    let more = |a: f64, b: f64| format!("{:.2e}", (a - b).abs());
    let safer = safer.map(|pair| {
        let reason = format!(
            "it is predicted to lose {} less of a step's progress, and costs {} of the step's products in f32 more",
            more(chosen.loss_estimate(), pair.loss_estimate()),
            more(pair.step_cost, chosen.step_cost),
        );
        (pair.clone(), reason)
    });
    let cheaper = cheaper.map(|pair| {
        let reason = format!(
            "it would save {} of the step's products in f32, and is predicted to lose {} more of a step's progress",
            more(chosen.step_cost, pair.step_cost),
            more(pair.loss_estimate(), chosen.loss_estimate()),
        );
        (pair.clone(), reason)
    });
    decision(policy, measured, chosen, safer, cheaper)
}

/// Of some pairs, the one that gains most for what it costs over `chosen`, and the one that loses least for what it saves.
pub(crate) fn next<'a>(
    pairs: &'a [Assessed],
    chosen: &Assessed,
) -> (Option<&'a Assessed>, Option<&'a Assessed>) {
    let rate = |pair: &Assessed| {
        let (loss, cost) = (
            pair.loss_estimate() - chosen.loss_estimate(),
            pair.step_cost - chosen.step_cost,
        );
        loss.abs() / cost.abs()
    };
    let safer = pairs
        .iter()
        .filter(|pair| pair.loss_estimate() < chosen.loss_estimate())
        .filter(|pair| pair.step_cost > chosen.step_cost)
        .max_by(|a, b| rate(a).total_cmp(&rate(b)));
    let cheaper = pairs
        .iter()
        .filter(|pair| pair.loss_estimate() > chosen.loss_estimate())
        .filter(|pair| pair.step_cost < chosen.step_cost)
        .min_by(|a, b| rate(a).total_cmp(&rate(b)));
    (safer, cheaper)
}

fn decision(
    policy: &Policy,
    measured: &MeasuredPass<'_>,
    chosen: &Assessed,
    runner_up: Option<(Assessed, String)>,
    rejected: Option<(Assessed, String)>,
) -> Decision {
    let pass = measured.pass;
    let samples = &measured.measured.samples;
    let steps = || samples.iter().map(|sample| sample.step);
    let steps_alone = match policy.choice {
        Choice::Thresholds => Vec::new(),
        Choice::Budget(_) => measured.step_by_step(chosen.numerics()),
    };
    let worst = |of: &dyn Fn(&PairError) -> f64| {
        let highs = steps_alone.iter().map(of).filter(|high| high.is_finite());
        highs.reduce(f64::max).map(significant)
    };
    let operand = |error: &OperandError, of: fn(&PairError) -> &OperandError| OperandEvidence {
        underflow: significant(error.underflow.estimate),
        underflow_worst_step: worst(&|step| of(step).underflow.high),
        saturation: significant(error.saturation.estimate),
        bias: significant(error.bias.estimate),
    };
    let [left_role, right_role]: [Role; 2] = pass.operands();
    let depth = measured.shape.depth;
    let error = &chosen.error;
    let evidence = Evidence {
        samples: samples.len() as u64,
        first_step: steps().min().unwrap_or(0),
        last_step: steps().max().unwrap_or(0),
        outputs: error.product.map_or(0, |product| product.count),
        depth: depth as u64,
        cost: chosen.cost,
        cost_share: Some(significant(measured.cost_share())),
        quality_loss: chosen.loss.map(|loss| significant(loss.estimate())),
        quality_loss_high: chosen.loss.map(|loss| significant(loss.high())),
        backward_error: significant(error.product.map_or(0.0, |product| product.median)),
        backward_error_high: significant(backward_error_high(error)),
        backward_error_worst_step: worst(&backward_error_high),
        backward_error_bound: match policy.choice {
            Choice::Thresholds => significant(policy.thresholds.backward_error(pass, depth)),
            Choice::Budget(_) => f64::INFINITY,
        },
        margin: significant(1.0 - chosen.tightest.used()),
        tightest: chosen.tightest.measure(),
        rule: chosen.tightest.rule.to_string(),
        operands: BTreeMap::from([
            (left_role, operand(&error.left, |step| &step.left)),
            (right_role, operand(&error.right, |step| &step.right)),
        ]),
        runner_up: runner_up.map(|(pair, reason)| alternative(pass, &pair, reason)),
        rejected: rejected.map(|(pair, reason)| alternative(pass, &pair, reason)),
        promotion: None,
    };
    Decision {
        site: measured.site,
        pass,
        numerics: chosen.numerics(),
        evidence,
    }
}

fn alternative(pass: Pass, pair: &Assessed, reason: String) -> Alternative {
    Alternative {
        numerics: pair.numerics().by_role(pass),
        cost: pair.cost,
        backward_error: significant(pair.median()),
        quality_loss: pair.loss.map(|loss| significant(loss.estimate())),
        reason,
    }
}

fn missed(pair: &Assessed) -> String {
    let metric = pair.tightest.measure();
    let Check {
        rule, high, bound, ..
    } = pair.tightest;
    if pair.error.product.is_none() {
        "the samples hold nothing but zeros or non-finite products".to_string()
    } else if high.is_finite() {
        format!("{metric} may be {high:.3e}, beyond {bound:.3e} ({rule})")
    } else if pair.median().is_finite() {
        "the samples have too few rows for a confidence interval".to_string()
    } else {
        format!("{metric} is not finite")
    }
}
