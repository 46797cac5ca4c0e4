//! Watching a run: is what was decided from measurements before it still in budget, and what to do if it is not.
//!
//! Three things are watched. *Operands*: every n-th step, sampled rows of both operands of every pass are quantized as the
//! plan says, and the [thresholds](crate::Thresholds) of the choice are held against the result. *Growth*: the operands'
//! amaxes, against those of the last quiet measurement. *The loss* of every step, against its trend.
//!
//! A pass that stays out of budget is promoted: to the cheapest pair further up a [`Ladder`] that clears the thresholds on
//! the same sample. When what it had would do again for long, it gets that back. A loss that stays above its trend, or steps
//! that keep being skipped, are a divergence: the caller goes back to a checkpoint from before it began, and the passes
//! that stand out by measurement get safer numerics; where none does, all of them.
//!
//! All of it is a function of [`State`], which is data, and of what comes in; so a run that goes on from a checkpoint
//! decides as it would have.
//!
//! | type | what it answers |
//! |---|---|
//! | [`Settings`] | when is it measured, and what is too much |
//! | [`Ladder`] | which numerics are safer |
//! | [`Guard`] | what is decided |
//! | [`Measurement`] | what was seen |

mod hysteresis;
mod ladder;
mod measurement;
mod settings;
mod trend;

use std::collections::BTreeMap;

use mantissa_quant::Numerics;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cost::Target;
use crate::decision::{Change, Decision, Exceeded, PassChange};
use crate::evaluate::Excerpt;
use crate::evidence::{Evidence, significant};
use crate::plan::{Plan, PlannedSite, Source};
use crate::policy::Check;
use crate::site::{Pass, PassNumerics, Role};
use hysteresis::{PassState, Turn};
pub use ladder::{Ladder, Rung};
use measurement::Trial;
pub use measurement::{Measurement, OperandMeasurement, Sample};
pub use settings::Settings;
pub use trend::Trend;

/// Watches a run, and decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    settings: Settings,
    state: State,
}

/// Everything that the guard remembers: part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    passes: BTreeMap<String, BTreeMap<Pass, PassState>>,
    trend: Trend,
    trouble: Option<Trouble>,
    rollbacks: Vec<Rollback>,
}

/// A streak of bad steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Trouble {
    /// The first of them.
    since: u64,
    /// Losses far above their trend in a row, or forward passes that were not finite.
    spikes: u32,
    /// Skipped steps in a row.
    skips: u32,
    /// The first operand that was not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
}

/// An operand with elements that are infinite or NaN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// The operand.
    pub operand: Role,
    /// How many elements.
    pub count: u64,
}

/// A rollback that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rollback {
    /// When the trouble had begun.
    since: u64,
    /// Where the run went back to.
    to_step: u64,
}

/// What became of a step, as far as the guard is concerned.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The weights were updated.
    Applied {
        /// The loss before the update.
        loss: f64,
    },
    /// The step was skipped.
    Skipped {
        /// What of it was not finite.
        kind: Skip,
        /// The first operand that was not, if one is known.
        fault: Option<Fault>,
    },
}

/// What was not finite in a step that was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The backward pass: a lower loss scale may help.
    Backward,
    /// The forward pass: it is as bad as a loss far above its trend.
    Forward,
    /// The weights: no step can succeed.
    Weights,
    /// Any, and the loss scaling or the run's own limit gives up.
    Exhausted,
}

/// What a step's outcome asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// To go on.
    GoOn,
    /// To go back to before the divergence began, and on with [`Guard::roll_back`].
    Diverged(Divergence),
    /// To end the run: it has been rolled back as often as it may.
    GiveUp(Divergence),
}

/// Why a run is no longer worth going on with.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The step at which it was found.
    pub step: u64,
    /// The first step that showed it: a checkpoint is good if it was made before, since the loss of its own step was.
    pub since: u64,
    /// What happened, in words.
    pub reason: String,
    /// The metric.
    pub evidence: Exceeded,
}

impl Guard {
    /// A guard at a run's first step.
    pub fn new(settings: Settings) -> Self {
        Guard::from_state(settings, State::default())
    }

    /// A guard that goes on with what it remembers.
    pub fn from_state(settings: Settings, state: State) -> Self {
        Guard { settings, state }
    }

    /// What it remembers.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it acts.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether this step's operands are to be sampled. The first step's are not: they are those of random weights.
    pub fn is_due(&self, step: u64) -> bool {
        self.is_in_trouble() || (step > 0 && step.is_multiple_of(self.settings.every.max(1)))
    }

    /// Whether the last steps were bad; checkpoints made before are then better kept.
    pub fn is_in_trouble(&self) -> bool {
        self.state.trouble.is_some()
    }

    /// How often the run was rolled back.
    pub fn rollbacks(&self) -> usize {
        self.state.rollbacks.len()
    }

    /// Measures the samples of a step under `plan`, and changes the plan where that says so. Stochastic numerics draw from
    /// `seed`. Samples of a step whose forward pass was not finite say nothing; leave them out.
    pub fn measure(
        &mut self,
        plan: &mut Plan,
        samples: &[Sample],
        seed: u64,
    ) -> (Vec<Measurement>, Vec<Decision>) {
        let target = target(plan);
        let in_trouble = self.is_in_trouble();
        let (settings, state) = (&self.settings, &mut self.state);
        let in_force: BTreeMap<&str, _> = plan
            .sites
            .iter()
            .map(|site| (site.name.as_str(), site))
            .collect();
        let taken: Vec<(&Sample, PassNumerics, Option<&Evidence>, PassState)> = samples
            .iter()
            .filter_map(|sample| {
                let site = in_force.get(sample.site.as_str())?;
                let passes = state.passes.entry(sample.site.clone()).or_default();
                let pass_state = passes.remove(&sample.pass).unwrap_or_default();
                let numerics = *site.numerics.pass(sample.pass);
                Some((sample, numerics, agreed(site, sample.pass), pass_state))
            })
            .collect();
        let measured: Vec<(&Sample, PassNumerics, PassState, Measurement, Option<Turn>)> = taken
            .into_par_iter()
            .map(|(sample, in_force, agreed, mut state)| {
                let excerpt = [Excerpt::new(&sample.rows, settings.outputs)];
                let mut trial = Trial::new(sample, &excerpt, settings, seed);
                let (measurement, check) = trial.measure(in_force, agreed);
                state.see_amaxes([sample.rows.left_amax, sample.rows.right_amax], in_trouble);
                let machine = (&target, excerpt[0].depth());
                let turn = state.consider(in_force, check, settings, machine, |pair| {
                    trial.tightest(pair)
                });
                (sample, in_force, state, measurement, turn)
            })
            .collect();

        let (mut measurements, mut decisions) = (Vec::new(), Vec::new());
        for (sample, from, pass_state, measurement, turn) in measured {
            let passes = state.passes.entry(sample.site.clone()).or_default();
            passes.insert(sample.pass, pass_state);
            if let Some(turn) = turn {
                let change = PassChange::new(&sample.site, sample.pass, from, turn.to);
                set(plan, &sample.site, sample.pass, turn.to);
                decisions.push(Decision {
                    step: measurement.step,
                    change: if turn.is_promotion {
                        Change::Promoted(change)
                    } else {
                        Change::Demoted(change)
                    },
                    reason: turn.reason,
                    evidence: exceeded(&turn.check),
                });
            }
            measurements.push(measurement);
        }
        (measurements, decisions)
    }

    /// Takes in what became of `step`.
    pub fn see_step(&mut self, step: u64, outcome: Outcome) -> Verdict {
        let Settings {
            spike,
            spikes,
            skips,
            max_rollbacks,
            ..
        } = self.settings;
        let state = &mut self.state;
        let limit = state.trend.limit(spike);
        let mut trouble = state.trouble.take().unwrap_or(Trouble {
            since: step,
            ..Trouble::default()
        });
        match &outcome {
            Outcome::Applied { loss } if loss.is_finite() => {
                state.trend.push(*loss, spike);
                if limit.is_none_or(|limit| *loss <= limit) {
                    return Verdict::GoOn;
                }
                trouble.spikes += 1;
            }
            Outcome::Applied { .. } => trouble.spikes += 1,
            Outcome::Skipped { kind, fault } => {
                match kind {
                    Skip::Backward => trouble.skips += 1,
                    Skip::Forward => trouble.spikes += 1,
                    Skip::Weights => trouble.spikes = trouble.spikes.max(spikes),
                    Skip::Exhausted => trouble.skips = trouble.skips.max(skips),
                }
                trouble.fault = trouble.fault.take().or_else(|| fault.clone());
            }
        }
        let (spiked, skipped) = (trouble.spikes, trouble.skips);
        let since = trouble.since;
        state.trouble = Some(trouble);
        if spiked < spikes && skipped < skips {
            return Verdict::GoOn;
        }

        let count = |metric: &str, value: u32, bound: u32| Exceeded {
            metric: metric.to_string(),
            value: value.into(),
            bound: bound.into(),
        };
        let (reason, evidence) = match outcome {
            Outcome::Applied { loss } if loss.is_finite() => {
                let limit = limit.unwrap_or(loss);
                (
                    format!(
                        "the loss has been far above its trend for {spiked} steps: {loss:.4}, beyond {limit:.4}"
                    ),
                    Exceeded {
                        metric: "loss".to_string(),
                        value: significant(loss),
                        bound: significant(limit),
                    },
                )
            }
            Outcome::Skipped {
                kind: Skip::Weights,
                ..
            } => (
                "the weights are not finite".to_string(),
                count("unusable losses", spiked, spikes),
            ),
            _ if skipped >= skips => (
                format!("{skipped} steps in a row were skipped, or the loss scaling gave up"),
                count("skipped steps", skipped, skips),
            ),
            _ => (
                format!(
                    "the forward pass has not been finite or near its trend for {spiked} steps"
                ),
                count("unusable losses", spiked, spikes),
            ),
        };
        let divergence = Divergence {
            step,
            since,
            reason,
            evidence,
        };
        if state.rollbacks.len() as u32 >= max_rollbacks {
            Verdict::GiveUp(divergence)
        } else {
            Verdict::Diverged(divergence)
        }
    }

    /// The step before which a checkpoint must have been made to go back to: before the divergence began; and where the
    /// last rollback ended no later, before where that went back to, since it did not help.
    pub fn go_back_before(&self, divergence: &Divergence) -> u64 {
        match self.state.rollbacks.last() {
            Some(last) if divergence.since <= last.since => last.to_step.min(divergence.since),
            _ => divergence.since,
        }
    }

    /// Makes `plan` safer for a run that goes on from `to_step`. `at_checkpoint` is what the guard remembered there, `None`
    /// at the beginning of the run.
    pub fn roll_back(
        &mut self,
        plan: &mut Plan,
        divergence: &Divergence,
        to_step: u64,
        at_checkpoint: Option<&State>,
    ) -> Vec<Decision> {
        let step = divergence.step;
        let quantized = |plan: &Plan| -> Vec<(String, Pass, PassNumerics)> {
            let passes = plan.sites.iter().flat_map(|site| {
                Pass::ALL.map(|pass| (site.name.clone(), pass, *site.numerics.pass(pass)))
            });
            passes.filter(|(_, _, pair)| !pair.is_fp32()).collect()
        };
        let mut suspects = self.suspects(plan);
        let stands_out = |suspect: &Suspect| suspect.score > 1.0;
        // What went wrong forward explains what went wrong backward, and not the other way round; unless nothing but a
        // gradient overflowed.
        let overflowed = suspects
            .first()
            .is_some_and(|first| first.score.is_infinite());
        let forward = |suspect: &Suspect| suspect.pass == Pass::Forward;
        if !overflowed
            && suspects
                .iter()
                .any(|suspect| forward(suspect) && stands_out(suspect))
        {
            suspects.retain(forward);
        }
        let worst = suspects.first().map_or(0.0, |suspect| suspect.score);
        let stand_out: Vec<&Suspect> = suspects
            .iter()
            .filter(|suspect| stands_out(suspect) && suspect.score * 2.0 >= worst)
            .collect();
        let culprit = stand_out.first().map_or_else(
            || "no pass stands out by measurement, so that all get safer numerics".to_string(),
            |worst| {
                format!(
                    "worst by measurement is {} ({}): {}",
                    worst.site,
                    worst.pass,
                    worst.words()
                )
            },
        );
        let mut decisions = vec![Decision {
            step,
            change: Change::RolledBack { to_step },
            reason: format!("{}; {culprit}", divergence.reason),
            evidence: Some(divergence.evidence.clone()),
        }];
        let promote: Vec<(String, Pass, PassNumerics, String, Option<Exceeded>)> =
            if stand_out.is_empty() {
                let all = quantized(plan).into_iter();
                let reason = "rolled back, and no pass stood out".to_string();
                all.map(|(site, pass, pair)| (site, pass, pair, reason.clone(), None))
                    .collect()
            } else {
                let those = stand_out.into_iter();
                those
                    .map(|suspect| {
                        let reason = format!("rolled back; {}", suspect.words());
                        let evidence = Some(suspect.evidence());
                        let Suspect {
                            site, pass, pair, ..
                        } = suspect;
                        (site.clone(), *pass, *pair, reason, evidence)
                    })
                    .collect()
            };
        for (site, pass, from, reason, evidence) in promote {
            let passes = self.state.passes.entry(site.clone()).or_default();
            let pass_state = passes.entry(pass).or_default();
            let Some(to) = pass_state.climb(from, &self.settings) else {
                continue;
            };
            set(plan, &site, pass, to);
            decisions.push(Decision {
                step,
                change: Change::Promoted(PassChange::new(&site, pass, from, to)),
                reason,
                evidence,
            });
        }
        self.state.trend = at_checkpoint.map(|state| state.trend).unwrap_or_default();
        self.state.trouble = at_checkpoint.and_then(|state| state.trouble.clone());
        self.state.rollbacks.push(Rollback {
            since: divergence.since,
            to_step,
        });
        decisions
    }

    /// Forgets the passes in which two plans differ: a person changed them.
    pub fn plan_changed(&mut self, from: &Plan, to: &Plan) {
        for (site, passes) in &mut self.state.passes {
            let (Ok(from), Ok(to)) = (from.site(site), to.site(site)) else {
                continue;
            };
            for (&pass, state) in passes.iter_mut() {
                if from.numerics.pass(pass) != to.numerics.pass(pass) {
                    state.forget();
                }
            }
        }
    }

    /// The quantized passes by how bad their last measurement was, worst first.
    fn suspects(&self, plan: &Plan) -> Vec<Suspect> {
        let mut suspects = Vec::new();
        let fault = self.state.trouble.as_ref();
        if let Some(fault) = fault.and_then(|trouble| trouble.fault.as_ref())
            && let Ok(site) = plan.site(&fault.site)
            && !site.numerics.pass(fault.pass).is_fp32()
        {
            suspects.push(Suspect {
                site: fault.site.clone(),
                pass: fault.pass,
                pair: *site.numerics.pass(fault.pass),
                score: f64::INFINITY,
                metric: format!("non-finite elements of {}", fault.operand),
                value: fault.count as f64,
                bound: 0.0,
            });
        }
        for site in &plan.sites {
            for (&pass, state) in self.state.passes.get(&site.name).into_iter().flatten() {
                let pair = *site.numerics.pass(pass);
                if pair.is_fp32() {
                    continue;
                }
                // Wide formats are not hurt by the range of what they share a scale with.
                let narrow = |numerics: &Numerics| numerics.format.bits() < 16;
                let [left, right] = match (narrow(&pair.left), narrow(&pair.right)) {
                    (false, false) => [1.0; 2],
                    _ => state.growth,
                };
                let (operand, growth) = match pass.operands() {
                    [role, _] if left >= right => (role, left),
                    [_, role] => (role, right),
                };
                let (used, grown) = (
                    state.used / self.settings.tolerance,
                    growth / self.settings.drift,
                );
                let (metric, value, bound) = match &state.metric {
                    Some(metric) if used >= grown => (
                        format!("{metric}, as a share of its bound,"),
                        state.used,
                        self.settings.tolerance,
                    ),
                    _ => (
                        format!("growth of the amax of {operand}"),
                        growth,
                        self.settings.drift,
                    ),
                };
                suspects.push(Suspect {
                    site: site.name.clone(),
                    pass,
                    pair,
                    score: used.max(grown),
                    metric,
                    value,
                    bound,
                });
            }
        }
        suspects.sort_by(|a, b| b.score.total_cmp(&a.score));
        suspects
    }
}

/// A pass that may have to do with a divergence.
struct Suspect {
    site: String,
    pass: Pass,
    pair: PassNumerics,
    /// How far beyond what is expected it is: more than 1 stands out.
    score: f64,
    metric: String,
    value: f64,
    bound: f64,
}

impl Suspect {
    fn words(&self) -> String {
        format!(
            "{} is {:.3e}, beyond {:.3e}",
            self.metric, self.value, self.bound
        )
    }

    fn evidence(&self) -> Exceeded {
        Exceeded {
            metric: self.metric.clone(),
            value: significant(self.value),
            bound: significant(self.bound),
        }
    }
}

/// What a choice within a budget accepted of a pass, since it was worth its cost: it bounds no single product.
fn agreed(site: &PlannedSite, pass: Pass) -> Option<&Evidence> {
    let evidence = site.evidence.get(&pass)?;
    evidence
        .backward_error_bound
        .is_infinite()
        .then_some(evidence)
}

/// Changes one pass of a plan. What was measured for its old numerics says nothing of the new.
fn set(plan: &mut Plan, site: &str, pass: Pass, to: PassNumerics) {
    if let Some(site) = plan.sites.iter_mut().find(|planned| planned.name == site) {
        *site.numerics.pass_mut(pass) = to;
        site.evidence.remove(&pass);
    }
}

/// The machine that a plan was chosen for, or none in particular.
fn target(plan: &Plan) -> Target {
    let named = match &plan.source {
        Source::Profile { target, .. } => Target::preset(target).ok(),
        Source::Recipe(_) => None,
    };
    named.unwrap_or_else(|| Target::preset("emulate").expect("a target in the source"))
}

fn exceeded(check: &Check) -> Option<Exceeded> {
    check.high.is_finite().then(|| Exceeded {
        metric: check.measure(),
        value: significant(check.high),
        bound: significant(check.bound),
    })
}
