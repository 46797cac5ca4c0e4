//! When a pass gets other numerics: not on one bad measurement, not again soon, and back only after long.

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::cost::Target;
use crate::policy::Check;
use crate::site::PassNumerics;

/// How much of a bound can be used up, at most: more has no meaning, and infinities no JSON.
const MOST_USED: f64 = 1e9;

/// What the guard remembers of a pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PassState {
    /// Measurements in a row out of budget.
    out: u32,
    /// Measurements in a row in which the numerics it was promoted from would do.
    easy: u32,
    /// Measurements since it changed; from the beginning as many as it has to dwell.
    dwelt: Option<u32>,
    /// The numerics it was promoted from, the latest last.
    promoted_from: Vec<[Numerics; 2]>,
    /// How often it got them back.
    demotions: u32,
    /// How much of its bound the tightest metric used up at the last measurement.
    pub(super) used: f64,
    /// The metric.
    pub(super) metric: Option<String>,
    /// The operands' amaxes at the last measurement in calm.
    calm_amax: Option<[f32; 2]>,
    /// By how much they have grown since, at the last measurement.
    pub(super) growth: [f64; 2],
}

/// Other numerics for a pass, and what speaks for them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) to: PassNumerics,
    pub(super) is_promotion: bool,
    /// Of the numerics in force for a promotion, of those to come for a demotion.
    pub(super) check: Check,
    pub(super) reason: String,
}

impl PassState {
    /// Takes in the operands' amaxes; those of a run in trouble are compared with those before.
    pub(super) fn see_amaxes(&mut self, amaxes: [f32; 2], in_trouble: bool) {
        let growth = |now: f32, before: f32| {
            if now > before && before > 0.0 {
                (f64::from(now) / f64::from(before)).min(MOST_USED)
            } else {
                1.0
            }
        };
        self.growth = match self.calm_amax {
            Some(before) => [growth(amaxes[0], before[0]), growth(amaxes[1], before[1])],
            None => [1.0; 2],
        };
        if !in_trouble || self.calm_amax.is_none() {
            self.calm_amax = Some(amaxes);
        }
    }

    /// Takes in a measurement of the numerics in force, and decides. `tightest` evaluates other pairs on the same sample.
    pub(super) fn consider(
        &mut self,
        in_force: PassNumerics,
        measured: Option<Check>,
        settings: &Settings,
        (target, depth): (&Target, usize),
        mut tightest: impl FnMut(PassNumerics) -> Option<Check>,
    ) -> Option<Turn> {
        self.dwelt = self
            .dwelt
            .map(|measurements| measurements.saturating_add(1));
        let may_change = self
            .dwelt
            .is_none_or(|measurements| measurements > settings.dwell);
        if let Some(check) = measured {
            let used = check.used();
            self.used = used.min(MOST_USED);
            self.metric = Some(check.measure());
            self.out = if used > settings.tolerance {
                self.out.saturating_add(1)
            } else {
                0
            };
            if used > settings.far_out || (self.out >= settings.patience && may_change) {
                let mut pairs = settings
                    .ladder
                    .pairs_above(in_force, target, depth)
                    .into_iter();
                let clears = |pair: &PassNumerics| {
                    pair.is_fp32() || tightest(*pair).is_some_and(|check| check.used() <= 1.0)
                };
                if let Some(to) = pairs.find(clears) {
                    self.change();
                    self.promoted_from.push([in_force.left, in_force.right]);
                    let reason = exceeds(&check);
                    return Some(Turn {
                        to,
                        is_promotion: true,
                        check,
                        reason,
                    });
                }
            }
        } else if in_force.is_fp32() {
            (self.used, self.metric, self.out) = (0.0, None, 0);
        }
        if self.out > 0 {
            self.easy = 0;
            return None;
        }
        let &[left, right] = self.promoted_from.last()?;
        let back = PassNumerics { left, right };
        let check = tightest(back);
        let would_do = |check: &Check| check.used() <= settings.demote_below;
        let Some(check) = check.filter(would_do) else {
            self.easy = 0;
            return None;
        };
        self.easy = self.easy.saturating_add(1);
        let needed = settings
            .demote_after
            .saturating_mul(1 << self.demotions.min(16));
        if self.easy < needed || !may_change {
            return None;
        }
        self.change();
        self.promoted_from.pop();
        self.demotions += 1;
        Some(Turn {
            to: back,
            is_promotion: false,
            reason: format!(
                "{} would have been at most {:.3e}, below {:.3e}, for {needed} measurements",
                check.measure(),
                check.high,
                check.bound
            ),
            check,
        })
    }

    /// One rung up, whatever was measured.
    pub(super) fn climb(
        &mut self,
        in_force: PassNumerics,
        settings: &Settings,
    ) -> Option<PassNumerics> {
        let to = settings.ladder.step_up(in_force)?;
        self.change();
        self.promoted_from.push([in_force.left, in_force.right]);
        Some(to)
    }

    /// The numerics were changed by somebody else.
    pub(super) fn forget(&mut self) {
        *self = PassState::default();
    }

    fn change(&mut self) {
        (self.out, self.easy, self.dwelt) = (0, 0, Some(0));
    }
}

/// The words for a metric beyond its bound.
pub(super) fn exceeds(check: &Check) -> String {
    if check.high.is_finite() {
        format!(
            "{} may be {:.3e}, beyond {:.3e}",
            check.measure(),
            check.high,
            check.bound
        )
    } else {
        format!("{} is not finite", check.measure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Metric;

    /// Feeds shares of the bound that the numerics in force use up; cheaper ones use `cheap` of it.
    struct Pass {
        state: PassState,
        settings: Settings,
        in_force: PassNumerics,
        turns: Vec<(usize, String)>,
        measurements: usize,
    }

    fn numerics(text: &str) -> Numerics {
        text.parse().unwrap()
    }

    fn check(used: f64) -> Check {
        Check {
            rule: "forward_backward_error",
            metric: Metric::BackwardError,
            operand: None,
            value: used * 4e-3,
            high: used * 4e-3,
            bound: 4e-3,
        }
    }

    impl Pass {
        fn new(settings: Settings) -> Self {
            Pass {
                state: PassState::default(),
                settings,
                in_force: PassNumerics::both(numerics("int8/tensor")),
                turns: Vec::new(),
                measurements: 0,
            }
        }

        /// Measures with these shares of the bound for tensor, channel, and block granularity of both operands, the worse
        /// of the two counting.
        fn measure(&mut self, [tensor, channel, block]: [f64; 3]) {
            let of = |numerics: &Numerics| match numerics.to_string().as_str() {
                "int8/tensor" => tensor,
                "int8/channel" => channel,
                "int8/block32" => block,
                _ => 0.01,
            };
            let tightest = |pair: PassNumerics| Some(check(of(&pair.left).max(of(&pair.right))));
            let target = Target::preset("emulate").unwrap();
            let turn = self.state.consider(
                self.in_force,
                tightest(self.in_force),
                &self.settings,
                (&target, 256),
                tightest,
            );
            if let Some(turn) = turn {
                assert_ne!(turn.to, self.in_force);
                self.in_force = turn.to;
                let sign = if turn.is_promotion { '+' } else { '-' };
                let to = format!("{sign}{} {}", turn.to.left, turn.to.right);
                self.turns.push((self.measurements, to));
            }
            self.measurements += 1;
        }

        fn turns(&self) -> Vec<(usize, &str)> {
            let turns = self.turns.iter();
            turns.map(|(at, turn)| (*at, turn.as_str())).collect()
        }
    }

    #[test]
    fn one_bad_measurement_changes_nothing() {
        let mut pass = Pass::new(Settings::default());
        for used in [0.5, 2.0, 0.9, 1.2, 3.9, 1.25, 3.0, 0.0] {
            pass.measure([used, 0.1, 0.1]);
        }
        assert_eq!(pass.turns(), []);
    }

    #[test]
    fn two_in_a_row_take_the_cheapest_that_clears() {
        let mut pass = Pass::new(Settings::default());
        pass.measure([1.3, 0.5, 0.1]);
        pass.measure([1.3, 0.5, 0.1]);
        assert_eq!(pass.turns(), [(1, "+int8/channel int8/channel")]);
        let mut pass = Pass::new(Settings::default());
        pass.measure([1.3, 1.1, 0.9]);
        pass.measure([1.3, 1.1, 0.9]);
        assert_eq!(pass.turns(), [(1, "+int8/block32 int8/block32")]);
    }

    #[test]
    fn nothing_clears_but_a_wider_format() {
        let mut pass = Pass::new(Settings::default());
        pass.measure([9.0, 8.0, 7.0]);
        assert_eq!(pass.turns(), [(0, "+bf16 bf16")]);
    }

    #[test]
    fn far_out_waits_for_nothing() {
        let mut pass = Pass::new(Settings::default());
        pass.measure([4.1, 0.5, 0.5]);
        pass.measure([9.0, 4.1, 0.5]);
        assert_eq!(
            pass.turns(),
            [
                (0, "+int8/channel int8/channel"),
                (1, "+int8/block32 int8/block32")
            ]
        );
    }

    #[test]
    fn a_pass_dwells_before_it_changes_again() {
        for dwell in 0..6 {
            let mut pass = Pass::new(Settings {
                dwell,
                patience: 1,
                ..Settings::default()
            });
            for _ in 0..12 {
                pass.measure([2.0, 0.9, 0.5]);
                // From the next measurement on channels are out of budget too.
                pass.measure([2.0, 2.0, 0.5]);
            }
            let expected = (dwell as usize + 1).next_multiple_of(2).max(1);
            let second = pass.turns()[1].0;
            assert!(
                second > dwell as usize && second <= expected + 1,
                "{dwell}: {second}"
            );
        }
    }

    #[test]
    fn a_pass_goes_back_after_long_and_then_waits_longer() {
        let mut pass = Pass::new(Settings {
            demote_after: 5,
            ..Settings::default()
        });
        for _ in 0..3 {
            pass.measure([5.0, 0.5, 0.5]);
            (0..50).for_each(|_| pass.measure([0.1, 0.1, 0.1]));
        }
        let at: Vec<(usize, bool)> = pass
            .turns()
            .iter()
            .map(|(at, turn)| (*at, turn.starts_with('+')))
            .collect();
        assert_eq!(
            at,
            [
                (0, true),
                (5, false),
                (51, true),
                (61, false),
                (102, true),
                (122, false)
            ]
        );
        assert_eq!(pass.in_force, PassNumerics::both(numerics("int8/tensor")));
    }

    #[test]
    fn one_measurement_in_which_it_would_not_do_begins_the_wait_anew() {
        let mut pass = Pass::new(Settings {
            demote_after: 5,
            ..Settings::default()
        });
        pass.measure([5.0, 0.5, 0.5]);
        for i in 0..100 {
            pass.measure([if i % 5 == 4 { 0.8 } else { 0.1 }, 0.1, 0.1]);
        }
        assert_eq!(pass.turns().len(), 1);
    }

    /// Whatever is measured, a pass changes by rungs, never below where it began, and not within its dwell unless far out.
    #[test]
    fn no_sequence_of_measurements_makes_it_flap() {
        let mut random = 1_u64;
        let mut draw = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as f64 / (1_u64 << 31) as f64
        };
        for run in 0..200 {
            let settings = Settings {
                dwell: run % 5,
                patience: 1 + run % 3,
                demote_after: 1 + run % 7,
                ..Settings::default()
            };
            let mut pass = Pass::new(settings.clone());
            let (mut last, mut far) = (None, Vec::new());
            for i in 0..300 {
                let tensor = 6.0 * draw() * draw();
                let channel = tensor * draw();
                let block = channel * draw();
                pass.measure([tensor, channel, block]);
                far.push(tensor > settings.far_out);
                if pass.turns.last().is_some_and(|(at, _)| *at == i) {
                    if let Some(last) = last
                        && !far[i]
                    {
                        assert!(i - last > settings.dwell as usize, "run {run}: {last}, {i}");
                    }
                    last = Some(i);
                }
            }
            let ups = pass.turns.iter().filter(|(_, turn)| turn.starts_with('+'));
            assert_eq!(
                pass.state.promoted_from.len(),
                2 * ups.count() - pass.turns.len(),
                "promotions less demotions"
            );
        }
    }

    #[test]
    fn without_evidence_nothing_changes() {
        let mut state = PassState::default();
        let target = Target::preset("emulate").unwrap();
        let in_force = PassNumerics::both(numerics("int8/tensor"));
        for _ in 0..10 {
            let turn = state.consider(in_force, None, &Settings::default(), (&target, 8), |_| {
                panic!("nothing is tried")
            });
            assert_eq!(turn, None);
        }
    }

    #[test]
    fn growth_is_told_from_the_last_calm_measurement() {
        let mut state = PassState::default();
        state.see_amaxes([1.0, 2.0], false);
        state.see_amaxes([1.5, 2.0], false);
        assert_eq!(state.growth, [1.5, 1.0]);
        state.see_amaxes([3.0, 8192.0], true);
        state.see_amaxes([3.0, 8192.0], true);
        assert_eq!(state.growth, [2.0, 4096.0]);
    }
}
