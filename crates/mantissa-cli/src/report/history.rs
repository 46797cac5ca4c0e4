//! What the log of a run says over its steps.

use serde::Serialize;

use super::short;
use crate::training::StepRecord;

/// The most points of a curve on the page; a longer log is averaged over equal stretches of steps.
const POINTS: u64 = 1500;
/// The most skipped steps that are told one by one.
const SKIPS: usize = 400;

/// The log of a run, in few numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// How many steps one point of the curve stands for.
    pub stretch: u64,
    /// The first step of each point.
    pub steps: Vec<u64>,
    /// The mean training loss over each; absent where none was finite.
    pub losses: Vec<Option<f64>>,
    /// The loss scale where it changed, and at the last step; empty where it was always 1.
    pub loss_scale: Vec<(u64, f64)>,
    /// The first skipped steps.
    pub skips: Vec<Skip>,
    /// All skipped steps.
    pub skipped: u64,
    /// The step after the last.
    pub end: u64,
}

/// A skipped step.
#[derive(Clone, Debug, Serialize)]
pub struct Skip {
    /// The step.
    pub step: u64,
    /// The scale its loss had.
    pub loss_scale: f64,
    /// Why it was skipped, in words.
    pub cause: String,
    /// The first operand with values that are not finite.
    pub first: Option<String>,
    /// The parameters whose gradients are not finite.
    pub parameters: Vec<String>,
}

impl History {
    /// Of records ascending by step.
    pub fn of(log: &[StepRecord]) -> Self {
        let end = log.last().map_or(0, |last| last.step + 1);
        let stretch = end.div_ceil(POINTS).max(1);
        let mut history = Self {
            stretch,
            end,
            ..Self::default()
        };
        for part in log.chunk_by(|a, b| a.step / stretch == b.step / stretch) {
            let losses: Vec<f64> = part
                .iter()
                .filter_map(|record| record.loss.map(f64::from))
                .collect();
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            history.steps.push(part[0].step);
            history.losses.push(short(mean));
        }
        for record in log {
            let scale = f64::from(record.loss_scale);
            let same = history
                .loss_scale
                .last()
                .is_some_and(|(_, known)| *known == scale);
            if !same {
                history.loss_scale.push((record.step, scale));
            }
            if record.skipped {
                history.skipped += 1;
                if history.skips.len() < SKIPS {
                    history.skips.push(Skip::of(record));
                }
            }
        }
        match (history.loss_scale.last().copied(), log.last()) {
            (Some((_, 1.0)), _) if history.loss_scale.len() == 1 => history.loss_scale.clear(),
            (Some((step, scale)), Some(last)) if step != last.step => {
                history.loss_scale.push((last.step, scale));
            }
            _ => {}
        }
        history
    }
}

impl Skip {
    fn of(record: &StepRecord) -> Self {
        let skip = record.skip.as_ref();
        let gradients = skip.map_or(&[][..], |skip| &skip.gradients);
        Self {
            step: record.step,
            loss_scale: f64::from(record.loss_scale),
            cause: record.cause.clone().unwrap_or_default(),
            first: skip.and_then(|skip| skip.first.as_ref()).map(|first| {
                format!(
                    "{} of {}, {}: {} not finite",
                    first.operand, first.site, first.pass, first.count
                )
            }),
            parameters: gradients
                .iter()
                .take(3)
                .map(|gradient| gradient.parameter.clone())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(steps: u64, scale: impl Fn(u64) -> f32) -> Vec<StepRecord> {
        (0..steps)
            .map(|step| StepRecord {
                step,
                loss: (step != 7).then_some(step as f32),
                loss_scale: scale(step),
                learning_rate: 0.1,
                skipped: step == 7,
                cause: (step == 7).then(|| "overflow".to_owned()),
                skip: None,
            })
            .collect()
    }

    #[test]
    fn a_long_log_is_averaged() {
        let history = History::of(&log(2 * POINTS, |_| 1.0));
        assert_eq!(history.stretch, 2);
        assert_eq!(history.steps.len() as u64, POINTS);
        assert_eq!(
            history.losses[..4],
            [Some(0.5), Some(2.5), Some(4.5), Some(6.0)]
        );
        assert!(history.loss_scale.is_empty());
        assert_eq!((history.skipped, history.skips[0].step), (1, 7));
    }

    #[test]
    fn the_loss_scale_is_told_where_it_changes() {
        let history = History::of(&log(20, |step| if step < 10 { 8.0 } else { 4.0 }));
        assert_eq!(history.loss_scale, [(0, 8.0), (10, 4.0), (19, 4.0)]);
        assert_eq!(history.losses[7], None);
        assert_eq!(History::of(&[]).steps.len(), 0);
    }
}
