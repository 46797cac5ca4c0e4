//! The amaxes of the steps before, from which operands with delayed scaling take their scales.
//!
//! As in TransformerEngine's `DelayedScaling`: a step's scale comes from the steps before it alone, so that it is known
//! before the tensor is, and the step's own amax counts from the next one on. An amax belongs to its step, so that an
//! operand that is computed again within a step is remembered once, and one that is used twice counts by its largest.

use std::collections::{BTreeMap, VecDeque};

use mantissa_plan::{Pass, Plan, Role, SiteNumerics};
use mantissa_quant::AmaxPolicy;
use serde::{Deserialize, Serialize};

/// The amaxes of all operands of a [`Session`](crate::Session) with delayed scaling, as checkpoints keep them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AmaxHistories(BTreeMap<String, History>);

/// The steps and amaxes of one operand, ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct History(VecDeque<(u64, f32)>);

/// The amaxes of one step, by operand.
pub(crate) type AmaxesOfStep = BTreeMap<String, f32>;

fn key(site: &str, pass: Pass, role: Role) -> String {
    format!("{site}/{pass}/{role}")
}

impl AmaxHistories {
    /// What step `step` is scaled by; `None` for a dynamic policy, and where nothing is remembered yet: the operand's
    /// own amax then calibrates.
    pub(crate) fn amax(
        &self,
        (site, pass, role): (&str, Pass, Role),
        policy: AmaxPolicy,
        step: u64,
    ) -> Option<f32> {
        let AmaxPolicy::Delayed { history, .. } = policy else {
            return None;
        };
        let of_operand = self.0.get(&key(site, pass, role))?;
        let before = of_operand.0.iter().rev().filter(|(at, _)| *at < step);
        let remembered = before.take(usize::from(history.get()));
        remembered.map(|(_, amax)| *amax).reduce(f32::max)
    }

    /// Remembers what `step` met. Zero and non-finite amaxes say nothing of a scale: those of overflowed steps, which
    /// are skipped, would ruin the steps to come.
    pub(crate) fn push(
        &mut self,
        (site, pass, role): (&str, Pass, Role),
        policy: AmaxPolicy,
        step: u64,
        amax: f32,
    ) {
        let AmaxPolicy::Delayed { history, .. } = policy else {
            return;
        };
        if !amax.is_finite() || amax == 0.0 {
            return;
        }
        let of_operand = &mut self.0.entry(key(site, pass, role)).or_default().0;
        match of_operand.back_mut() {
            Some((at, largest)) if *at == step => *largest = largest.max(amax),
            _ => of_operand.push_back((step, amax)),
        }
        // One more than are read, for the step in work.
        while of_operand.len() > usize::from(history.get()) + 1 {
            of_operand.pop_front();
        }
    }

    /// Forgets those operands of a site whose numerics differ.
    pub(crate) fn retain_unchanged(&mut self, site: &str, from: &SiteNumerics, to: &SiteNumerics) {
        for ((pass, role, before), (_, _, after)) in from.operands().into_iter().zip(to.operands())
        {
            if before != after {
                self.0.remove(&key(site, pass, role));
            }
        }
    }

    /// What two plans agree about: operands whose numerics differ calibrate anew.
    pub fn carried_over(mut self, from: &Plan, to: &Plan) -> Self {
        for site in &from.sites {
            if let Ok(after) = to.site(&site.name) {
                self.retain_unchanged(&site.name, &site.numerics, &after.numerics);
            }
        }
        self
    }

    /// What was met in `step`, by operand.
    pub(crate) fn of_step(&self, step: u64) -> AmaxesOfStep {
        let of_step = |history: &History| {
            let found = history.0.iter().rev().find(|(at, _)| *at == step)?;
            Some(found.1)
        };
        let operands = self.0.iter();
        operands
            .filter_map(|(operand, history)| Some((operand.clone(), of_step(history)?)))
            .collect()
    }

    /// Takes in what another rank met in `step`, the last one remembered.
    pub(crate) fn merge_step(&mut self, step: u64, met: AmaxesOfStep) {
        for (operand, amax) in met {
            let of_operand = &mut self.0.entry(operand).or_default().0;
            match of_operand.back_mut() {
                Some((at, largest)) if *at == step => *largest = largest.max(amax),
                _ => of_operand.push_back((step, amax)),
            }
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERAND: (&str, Pass, Role) = ("encoder.query", Pass::GradRhs, Role::Grad);

    fn delayed(history: u16) -> AmaxPolicy {
        format!("delayed{history}").parse().unwrap()
    }

    /// The amaxes that each step of `found` is scaled by.
    fn scaled_by(policy: AmaxPolicy, found: &[f32]) -> Vec<Option<f32>> {
        let mut histories = AmaxHistories::default();
        let steps = (10..).zip(found);
        let amaxes = steps.map(|(step, &amax)| {
            let scaled_by = histories.amax(OPERAND, policy, step);
            histories.push(OPERAND, policy, step, amax);
            // Computed again, and used a second time with smaller elements.
            histories.push(OPERAND, policy, step, amax);
            histories.push(OPERAND, policy, step, amax / 2.0);
            assert_eq!(histories.amax(OPERAND, policy, step), scaled_by);
            scaled_by
        });
        amaxes.collect()
    }

    #[test]
    fn a_step_is_scaled_by_the_largest_of_the_steps_before() {
        let found = [3.0, 8.0, 2.0, 1.0, 0.5, 4.0];
        let expected = [None, Some(3.0), Some(8.0), Some(8.0), Some(8.0), Some(2.0)];
        assert_eq!(scaled_by(delayed(3), &found), expected);
        let most_recent = [None, Some(3.0), Some(8.0), Some(2.0), Some(1.0), Some(0.5)];
        assert_eq!(scaled_by(delayed(1), &found), most_recent);
        assert_eq!(scaled_by(AmaxPolicy::Dynamic, &found), [None; 6]);
    }

    #[test]
    fn overflowed_and_empty_steps_are_not_remembered() {
        let found = [3.0, f32::INFINITY, 0.0, f32::NAN, 2.0, 1.0];
        let expected = [None, Some(3.0), Some(3.0), Some(3.0), Some(3.0), Some(2.0)];
        assert_eq!(scaled_by(delayed(1), &found), expected);
    }

    #[test]
    fn ranks_remember_the_largest_of_all() {
        let (mut one, mut other) = (AmaxHistories::default(), AmaxHistories::default());
        one.push(OPERAND, delayed(2), 4, 3.0);
        other.push(OPERAND, delayed(2), 4, 5.0);
        other.push(OPERAND, delayed(2), 5, 2.0);
        one.merge_step(4, other.of_step(4));
        one.merge_step(5, other.of_step(5));
        other.merge_step(4, AmaxesOfStep::new());
        assert_eq!(one, other);
        assert_eq!(one.amax(OPERAND, delayed(2), 6), Some(5.0));
    }

    #[test]
    fn histories_survive_their_text_form() {
        let mut histories = AmaxHistories::default();
        for step in 0..9 {
            histories.push(OPERAND, delayed(4), step, 0.1 + step as f32 / 3.0);
        }
        assert_eq!(
            histories.0.values().next().map(|history| history.0.len()),
            Some(5)
        );
        let text = serde_json::to_string(&histories).unwrap();
        assert_eq!(
            serde_json::from_str::<AmaxHistories>(&text).unwrap(),
            histories
        );
    }
}
