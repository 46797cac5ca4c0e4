//! Adam and AdamW.

use pulp::{Simd, WithSimd};

use super::{WeightDecay, check_moments};
use crate::state::{self, StateView};
use crate::vector::dispatch;

/// One step of Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980), algorithm 1) or AdamW ([Loshchilov and
/// Hutter 2019](https://arxiv.org/abs/1711.05101), algorithm 2), for parameters that take their `step`-th step:
///
/// ```text
/// g  = gradient_factor * gradient  (+ rate * p with an L2 penalty)
/// m  = beta_1 * m + (1 - beta_1) * g
/// v  = beta_2 * v + (1 - beta_2) * g²
/// p  = p  (- learning_rate * rate * p, decoupled)
///        - learning_rate / (1 - beta_1^step) * m / (sqrt(v) / sqrt(1 - beta_2^step) + epsilon)
/// ```
///
/// As in `torch.optim`, epsilon is added to the bias-corrected root.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    beta_1: f32,
    one_minus_beta_1: f32,
    beta_2: f32,
    one_minus_beta_2: f32,
    epsilon: f32,
    /// What bias correction multiplies the root of the second moment with.
    root_correction: f32,
    /// The learning rate over the first moment's bias correction.
    step_size: f32,
    /// What decoupled decay leaves of a parameter, 1 without it.
    keep: f32,
    /// The L2 rate, 0 without it.
    penalty: f32,
}

impl Adam {
    /// `step` counts from 1.
    ///
    /// # Panics
    /// If a beta is outside `0.0..1.0`, if `epsilon` is not positive (a parameter whose gradients are all zero would
    /// become NaN), or if `step` is 0.
    pub fn new(
        [beta_1, beta_2]: [f32; 2],
        epsilon: f32,
        decay: WeightDecay,
        learning_rate: f64,
        step: u64,
    ) -> Self {
        assert!(
            (0.0..1.0).contains(&beta_1) && (0.0..1.0).contains(&beta_2),
            "the betas of Adam are in 0.0..1.0, not {beta_1} and {beta_2}"
        );
        assert!(
            epsilon > 0.0,
            "the epsilon of Adam is positive, not {epsilon}"
        );
        assert!(step > 0, "steps count from 1");
        let bias_correction = |beta: f32| {
            let steps = i32::try_from(step).unwrap_or(i32::MAX);
            1.0 - f64::from(beta).powi(steps)
        };
        let (keep, penalty) = match decay {
            WeightDecay::Decoupled(rate) => (1.0 - learning_rate * f64::from(rate), 0.0),
            WeightDecay::L2(rate) => (1.0, rate),
        };
        Self {
            beta_1,
            one_minus_beta_1: 1.0 - beta_1,
            beta_2,
            one_minus_beta_2: 1.0 - beta_2,
            epsilon,
            root_correction: bias_correction(beta_2).sqrt().recip() as f32,
            step_size: (learning_rate / bias_correction(beta_1)) as f32,
            keep: keep as f32,
            penalty,
        }
    }

    /// Updates a tensor's `parameters` and its first and second moment (both zero before the first step) from its
    /// `gradients`. Large tensors are shared among the threads of the current rayon pool.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &[f32],
        parameters: &mut [f32],
        moments: [StateView<'_>; 2],
    ) {
        check_moments(gradients, parameters, &moments);
        let apply =
            |gradients: &[f32], parameters: &mut [f32], [first, second]: [&mut [f32]; 2]| {
                dispatch(AdamUpdate {
                    rule: *self,
                    gradient_factor,
                    gradients,
                    parameters,
                    first,
                    second,
                });
            };
        state::update(gradients, parameters, moments, &apply);
    }

    #[inline(always)]
    fn element(&self, gradient: f32, parameter: &mut f32, first: &mut f32, second: &mut f32) {
        let gradient = gradient + self.penalty * *parameter;
        *first = self.beta_1 * *first + self.one_minus_beta_1 * gradient;
        *second = self.beta_2 * *second + self.one_minus_beta_2 * (gradient * gradient);
        let root = second.sqrt() * self.root_correction + self.epsilon;
        *parameter = self.keep * *parameter - self.step_size * (*first / root);
    }
}

struct AdamUpdate<'a> {
    rule: Adam,
    gradient_factor: f32,
    gradients: &'a [f32],
    parameters: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for AdamUpdate<'_> {
    type Output = ();

    // A plain loop: compiled inside the dispatch it is vectorised at the width of the machine.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let moments = self.first.iter_mut().zip(self.second);
        let pairs = self.gradients.iter().zip(self.parameters);
        for ((gradient, parameter), (first, second)) in pairs.zip(moments) {
            let gradient = self.gradient_factor * gradient;
            self.rule.element(gradient, parameter, first, second);
        }
    }
}
