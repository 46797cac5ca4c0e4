//! LAMB.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::check_moments;
use crate::reduce::scan;
use crate::rows::PIECE;
use crate::state::{self, StateView};
use crate::vector::dispatch;

/// One step of LAMB ([You et al. 2020](https://arxiv.org/abs/1904.00962), algorithm 2), for parameters that take their `step`-th
/// step:
///
/// ```text
/// g  = gradient_factor * gradient
/// m  = beta_1 * m + (1 - beta_1) * g
/// v  = beta_2 * v + (1 - beta_2) * g²
/// u  = m / (1 - beta_1^step) / (sqrt(v) / sqrt(1 - beta_2^step) + epsilon) + weight_decay * p
/// p  = p - learning_rate * (|p| / |u|) * u
/// ```
///
/// The norms are of the whole tensor; where one of them is zero, their ratio (the *trust ratio*) counts as 1.
#[derive(Clone, Copy, Debug)]
pub struct Lamb {
    beta_1: f32,
    one_minus_beta_1: f32,
    beta_2: f32,
    one_minus_beta_2: f32,
    epsilon: f32,
    first_correction: f32,
    root_correction: f32,
    weight_decay: f32,
    learning_rate: f64,
    has_trust_ratio: bool,
}

impl Lamb {
    /// `step` counts from 1. Without trust ratio it is Adam, with the decay in the direction.
    ///
    /// # Panics
    /// If a beta is outside `0.0..1.0`, if `epsilon` is not positive, or if `step` is 0.
    pub fn new(
        [beta_1, beta_2]: [f32; 2],
        epsilon: f32,
        weight_decay: f32,
        has_trust_ratio: bool,
        learning_rate: f64,
        step: u64,
    ) -> Self {
        assert!(
            (0.0..1.0).contains(&beta_1) && (0.0..1.0).contains(&beta_2),
            "the betas of LAMB are in 0.0..1.0, not {beta_1} and {beta_2}"
        );
        assert!(
            epsilon > 0.0,
            "the epsilon of LAMB is positive, not {epsilon}"
        );
        assert!(step > 0, "steps count from 1");
        let steps = i32::try_from(step).unwrap_or(i32::MAX);
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(steps)).recip();
        Self {
            beta_1,
            one_minus_beta_1: 1.0 - beta_1,
            beta_2,
            one_minus_beta_2: 1.0 - beta_2,
            epsilon,
            first_correction: correction(beta_1) as f32,
            root_correction: correction(beta_2).sqrt() as f32,
            weight_decay,
            learning_rate,
            has_trust_ratio,
        }
    }

    /// Updates a tensor's `parameters` and its first and second moment (both zero before the first step) from its `gradients`,
    /// which become the direction `u`. Large tensors are shared among the threads of the current rayon pool.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &mut [f32],
        parameters: &mut [f32],
        moments: [StateView<'_>; 2],
    ) {
        check_moments(gradients, parameters, &moments);
        let apply =
            |parameters: &[f32], directions: &mut [f32], [first, second]: [&mut [f32]; 2]| {
                dispatch(Directions {
                    rule: self,
                    gradient_factor,
                    parameters,
                    directions,
                    first,
                    second,
                });
            };
        state::update(parameters, gradients, moments, &apply);
        let trust_ratio = if self.has_trust_ratio {
            let [parameter_norm, norm] =
                [&*parameters, &*gradients].map(|x| scan(x).square_sum.sqrt());
            if parameter_norm > 0.0 && norm > 0.0 {
                parameter_norm / norm
            } else {
                1.0
            }
        } else {
            1.0
        };
        descend(
            parameters,
            1.0,
            gradients,
            (self.learning_rate * trust_ratio) as f32,
        );
    }
}

/// `parameters = keep * parameters - step * directions`.
pub(super) fn descend(parameters: &mut [f32], keep: f32, directions: &[f32], step: f32) {
    let pieces = parameters
        .par_chunks_mut(PIECE)
        .zip(directions.par_chunks(PIECE));
    pieces.for_each(|(parameters, directions)| {
        dispatch(Descent {
            parameters,
            keep,
            directions,
            step,
        });
    });
}

struct Directions<'a> {
    rule: &'a Lamb,
    gradient_factor: f32,
    parameters: &'a [f32],
    /// Gradients at first.
    directions: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl WithSimd for Directions<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rule = *self.rule;
        let moments = self.first.iter_mut().zip(self.second);
        let pairs = self.parameters.iter().zip(self.directions);
        for ((parameter, direction), (first, second)) in pairs.zip(moments) {
            let gradient = self.gradient_factor * *direction;
            *first = rule.beta_1 * *first + rule.one_minus_beta_1 * gradient;
            *second = rule.beta_2 * *second + rule.one_minus_beta_2 * (gradient * gradient);
            let root = second.sqrt() * rule.root_correction + rule.epsilon;
            *direction = *first * rule.first_correction / root + rule.weight_decay * parameter;
        }
    }
}

struct Descent<'a> {
    parameters: &'a mut [f32],
    keep: f32,
    directions: &'a [f32],
    step: f32,
}

impl WithSimd for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (parameter, direction) in self.parameters.iter_mut().zip(self.directions) {
            *parameter = self.keep * *parameter - self.step * direction;
        }
    }
}
