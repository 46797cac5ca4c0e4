//! How an operand moves from step to step.

use mantissa_metrics::estimate_nu;
use serde::{Deserialize, Serialize};

use crate::profile::{LAST_STEP, OperandStatistics};

/// How many steps of one operand a profile tells apart; where there are more, those kept stay evenly spread.
pub const STEPS_KEPT: usize = 64;

/// Elements from which a step's `nu` is estimated: enough to know it to about a seventh where tails are heavy, and few enough
/// to cost little beside a step.
const FITTED: usize = 512;

/// What an operand was like in one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSummary {
    /// The training step.
    pub step: u64,
    /// The finite elements that were measured.
    pub count: u64,
    /// The largest finite magnitude of the full operand.
    pub amax: f32,
    /// Root mean square of the measured elements.
    pub rms: f64,
    /// The share of the measured elements that are zero.
    pub zeros: f64,
    /// The smallest measured magnitude other than zero.
    pub min_nonzero: Option<f32>,
    /// Degrees of freedom of a Student-t fit to a few of them; absent where there is none.
    pub nu: Option<f64>,
}

/// How an operand's amax moved over the measured steps, in powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The first measured step.
    pub first_step: u64,
    /// The last measured step.
    pub last_step: u64,
    /// The trend of log2 amax over 1000 steps: the median of the slopes between all pairs of steps (Theil 1950, Sen 1968),
    /// which a few steps with outliers do not move.
    pub amax_per_1000_steps: f64,
    /// The same of the root mean square.
    pub rms_per_1000_steps: f64,
    /// The largest change of log2 amax between steps that were measured one after the other.
    pub largest_jump: Jump,
}

/// A change of amax between two measured steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jump {
    /// The step before.
    pub from_step: u64,
    /// The step after.
    pub to_step: u64,
    /// The change of log2 amax; positive where it grew.
    pub log2_ratio: f64,
}

impl StepSummary {
    /// One step's summary, from its statistics and the rows they are about.
    pub(crate) fn of(step: u64, statistics: &OperandStatistics, rows: &[f32]) -> Self {
        let moments = &statistics.moments;
        StepSummary {
            step,
            count: moments.count,
            amax: statistics.amax,
            rms: moments.rms().unwrap_or(0.0),
            zeros: moments.zeros as f64 / moments.count.max(1) as f64,
            min_nonzero: moments.min_nonzero,
            nu: nu(rows),
        }
    }

    /// Adds what another rank or run measured in the same step.
    fn merge(&mut self, other: &StepSummary) {
        let count = self.count + other.count;
        let part = other.count as f64 / count.max(1) as f64;
        let mean = |mine: f64, theirs: f64| mine + (theirs - mine) * part;
        self.rms = mean(self.rms.powi(2), other.rms.powi(2)).sqrt();
        self.zeros = mean(self.zeros, other.zeros);
        self.nu = match (self.nu, other.nu) {
            (Some(mine), Some(theirs)) => Some(mean(mine.ln(), theirs.ln()).exp()),
            (mine, theirs) => mine.or(theirs),
        };
        self.min_nonzero = match (self.min_nonzero, other.min_nonzero) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.amax = self.amax.max(other.amax);
        self.count = count;
    }

    fn is_sound(&self) -> bool {
        let magnitude = |x: f64| x.is_finite() && x >= 0.0;
        magnitude(self.amax.into())
            && magnitude(self.rms)
            && (0.0..=1.0).contains(&self.zeros)
            && self.min_nonzero.is_none_or(|x| magnitude(x.into()))
            && self.nu.is_none_or(|nu| magnitude(nu) && nu > 0.0)
            && self.count <= 1 << 53
            && self.step <= LAST_STEP
    }
}

/// Degrees of freedom of a Student-t fit to a few of a step's sampled elements: the weight of their tails. `None` where it says
/// nothing.
pub(crate) fn nu(rows: &[f32]) -> Option<f64> {
    estimate_nu(rows, FITTED)
}

/// Adds one series to another; both ascend, and so does the result.
pub(crate) fn merge_series(series: &mut Vec<StepSummary>, other: &[StepSummary]) {
    for summary in other {
        match series.binary_search_by_key(&summary.step, |known| known.step) {
            Ok(place) => series[place].merge(summary),
            Err(place) => series.insert(place, *summary),
        }
    }
    while series.len() > STEPS_KEPT {
        series.remove(most_crowded(series, |summary| summary.step));
    }
}

/// What is wrong with a series that was read, if anything.
pub(crate) fn check_series(series: &[StepSummary]) -> Result<(), String> {
    if series.len() > STEPS_KEPT || !series.is_sorted_by(|a, b| a.step < b.step) {
        return Err(format!(
            "series must have at most {STEPS_KEPT} steps, ascending"
        ));
    }
    match series.iter().find(|summary| !summary.is_sound()) {
        None => Ok(()),
        Some(summary) => Err(format!(
            "series holds values at step {} that no operand has",
            summary.step
        )),
    }
}

/// The inner item whose neighbours are closest together in steps; without it the rest is most evenly spread. `items` ascend
/// by step.
pub(crate) fn most_crowded<T>(items: &[T], step: impl Fn(&T) -> u64) -> usize {
    let gap = |inner: usize| step(&items[inner + 1]) - step(&items[inner - 1]);
    (1..items.len().saturating_sub(1))
        .min_by_key(|&inner| gap(inner))
        .unwrap_or(0)
}

/// The drift over a series. Steps in which the operand was all zeros have no logarithm and are left out.
pub(crate) fn drift(series: &[StepSummary]) -> Option<Drift> {
    let log2 = |value: fn(&StepSummary) -> f64| {
        let positive = series.iter().filter(move |summary| value(summary) > 0.0);
        let points = positive.map(move |summary| (summary.step, value(summary).log2()));
        points.collect::<Vec<_>>()
    };
    let amax = log2(|summary| f64::from(summary.amax));
    let jumps = amax.windows(2).map(|pair| Jump {
        from_step: pair[0].0,
        to_step: pair[1].0,
        log2_ratio: pair[1].1 - pair[0].1,
    });
    Some(Drift {
        first_step: amax.first()?.0,
        last_step: amax.last()?.0,
        amax_per_1000_steps: 1000.0 * trend(&amax)?,
        rms_per_1000_steps: 1000.0 * trend(&log2(|summary| summary.rms))?,
        // Of equal jumps the first.
        largest_jump: jumps.reduce(|most, jump| {
            if jump.log2_ratio.abs() > most.log2_ratio.abs() {
                jump
            } else {
                most
            }
        })?,
    })
}

/// The median slope between all pairs of points, which ascend by step.
fn trend(points: &[(u64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(later, &(end, y))| {
        let earlier = points[..later].iter();
        earlier.map(move |&(start, x)| (y - x) / (end - start) as f64)
    });
    let mut slopes: Vec<f64> = pairs.collect();
    slopes.sort_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    match slopes.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(slopes[middle]),
        _ => Some(0.5 * (slopes[middle - 1] + slopes[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(step: u64, amax: f32) -> StepSummary {
        StepSummary {
            step,
            count: 100,
            amax,
            rms: f64::from(amax) / 4.0,
            zeros: 0.0,
            min_nonzero: Some(amax / 100.0),
            nu: Some(5.0),
        }
    }

    #[test]
    fn a_steady_trend_is_told_whatever_an_outlier_says() {
        // Doubling every 500 steps.
        let mut series: Vec<_> = (0..20u64)
            .map(|i| summary(100 * i, 2f32.powf(i as f32 / 5.0)))
            .collect();
        series[7].amax *= 64.0;
        let told = drift(&series).unwrap();
        assert!((told.amax_per_1000_steps - 2.0).abs() < 1e-5, "{told:?}");
        assert!((told.rms_per_1000_steps - 2.0).abs() < 1e-5, "{told:?}");
        let jump = told.largest_jump;
        assert_eq!((jump.from_step, jump.to_step), (600, 700));
        assert!((jump.log2_ratio - 6.2).abs() < 1e-5, "{jump:?}");
        assert_eq!((told.first_step, told.last_step), (0, 1900));
    }

    #[test]
    fn one_step_or_zeros_have_no_drift() {
        assert_eq!(drift(&[]), None);
        assert_eq!(drift(&[summary(3, 1.0)]), None);
        assert_eq!(drift(&[summary(3, 0.0), summary(4, 0.0)]), None);
        let told = drift(&[summary(0, 1.0), summary(5, 0.0), summary(10, 4.0)]).unwrap();
        assert_eq!(told.amax_per_1000_steps, 200.0);
        assert_eq!(told.largest_jump.from_step, 0);
    }

    #[test]
    fn a_long_series_stays_evenly_spread_and_equal_steps_merge() {
        let mut series = Vec::new();
        for step in 0..1000 {
            merge_series(&mut series, &[summary(step, 1.0)]);
        }
        assert_eq!(series.len(), STEPS_KEPT);
        assert_eq!((series[0].step, series[STEPS_KEPT - 1].step), (0, 999));
        let widest = series.windows(2).map(|pair| pair[1].step - pair[0].step);
        assert!(widest.max().unwrap() <= 4 * 1000 / STEPS_KEPT as u64);
        check_series(&series).unwrap();

        let mut ranks = vec![summary(7, 1.0)];
        let mut other = summary(7, 3.0);
        other.count = 300;
        merge_series(&mut ranks, &[other]);
        let [merged] = ranks[..] else {
            panic!("{ranks:?}")
        };
        assert_eq!((merged.count, merged.amax), (400, 3.0));
        assert!((merged.rms - (0.25 * 0.0625 + 0.75 * 0.5625f64).sqrt()).abs() < 1e-12);
        assert!((merged.nu.unwrap() - 5.0).abs() < 1e-12);
    }

    #[test]
    fn what_no_operand_has_is_found() {
        assert!(check_series(&[summary(2, 1.0), summary(2, 1.0)]).is_err());
        let wrong = [
            StepSummary {
                amax: -1.0,
                ..summary(1, 1.0)
            },
            StepSummary {
                rms: f64::NAN,
                ..summary(1, 1.0)
            },
            StepSummary {
                zeros: 1.5,
                ..summary(1, 1.0)
            },
            StepSummary {
                nu: Some(0.0),
                ..summary(1, 1.0)
            },
            StepSummary {
                count: u64::MAX,
                ..summary(1, 1.0)
            },
        ];
        for summary in wrong {
            let fault = check_series(&[summary]).unwrap_err();
            assert!(fault.contains("step 1"), "{fault}");
        }
    }
}
