//! Optimizer updates in one pass over parameters, gradients and moments.
//!
//! An update is set up once for a step ([`Adam::new`], [`Sgd::new`]: everything that depends on the step and not on
//! the element, computed in f64) and then applied to one tensor after the other. Each element is read once,
//! multiplied with `gradient_factor`, and written once. The operations of an element are single f32 additions,
//! multiplications, divisions and square roots in a fixed order, never fused, so that the result has the same bits
//! on every SIMD width and thread count.
//!
//! `gradient_factor` undoes the loss scale and clips: `clip / loss_scale`. Where that is a power of two the product
//! with the scaled gradient is exact, and the update is the one that the unscaled gradient gives.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Elements a task updates; tensors up to this size are updated by the calling thread.
const TASK: usize = 1 << 15;

/// How the parameter itself pulls towards zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightDecay {
    /// The parameter shrinks by `learning rate * rate` of itself, apart from the gradient: AdamW.
    Decoupled(f32),
    /// `rate` times the parameter is added to its gradient, as an L2 penalty of `rate / 2` times its square would.
    L2(f32),
}

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

    /// Updates a tensor's `parameters` and its `first` and `second` moments (both zero before the first step) from
    /// its `gradients`. Large tensors are shared among the threads of the current rayon pool.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &[f32],
        parameters: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let len = parameters.len();
        assert!(
            gradients.len() == len && first.len() == len && second.len() == len,
            "{len} parameters, {} gradients, {} first and {} second moments",
            gradients.len(),
            first.len(),
            second.len()
        );
        let update = |(((gradients, parameters), first), second)| {
            pulp::Arch::new().dispatch(AdamUpdate {
                rule: *self,
                gradient_factor,
                gradients,
                parameters,
                first,
                second,
            });
        };
        if len <= TASK {
            return update((((gradients, parameters), first), second));
        }
        gradients
            .par_chunks(TASK)
            .zip(parameters.par_chunks_mut(TASK))
            .zip(first.par_chunks_mut(TASK))
            .zip(second.par_chunks_mut(TASK))
            .for_each(update);
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

/// The momentum of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// How much of the velocity is kept.
    pub momentum: f64,
    /// How much of the gradient is withheld from the velocity, but not in a parameter's first step.
    pub dampening: f64,
    /// Whether the gradient is looked up where momentum will lead (Nesterov 1983, as Sutskever et al. 2013 put it).
    pub nesterov: bool,
}

/// One step of stochastic gradient descent, with momentum and weight decay as in `torch.optim.SGD`:
///
/// ```text
/// g  = gradient_factor * gradient + penalty * p
/// u  = momentum * u + (1 - dampening) * g,  in the first step g
/// p  = p - learning_rate * (u, or g + momentum * u with nesterov, or g without momentum)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    learning_rate: f32,
    penalty: f32,
    velocity: Option<Velocity>,
}

#[derive(Clone, Copy, Debug)]
struct Velocity {
    /// What is kept of it.
    momentum: f32,
    /// What is added of the gradient.
    share: f32,
    nesterov: bool,
}

impl Sgd {
    /// `penalty` is the L2 rate, 0 for none; `step` counts a parameter's steps from 1.
    ///
    /// # Panics
    /// If `step` is 0.
    pub fn new(penalty: f32, momentum: Option<Momentum>, learning_rate: f64, step: u64) -> Self {
        assert!(step > 0, "steps count from 1");
        let velocity = momentum.map(|of| Velocity {
            momentum: of.momentum as f32,
            share: if step == 1 {
                1.0
            } else {
                (1.0 - of.dampening) as f32
            },
            nesterov: of.nesterov,
        });
        Self {
            learning_rate: learning_rate as f32,
            penalty,
            velocity,
        }
    }

    /// Updates a tensor's `parameters` and, with momentum, its `velocity` (zero before the first step; without
    /// momentum it is empty) from its `gradients`. Large tensors are shared among the threads of the current rayon
    /// pool.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &[f32],
        parameters: &mut [f32],
        velocity: &mut [f32],
    ) {
        let len = parameters.len();
        let expected_velocity = self.velocity.map_or(0, |_| len);
        assert!(
            gradients.len() == len && velocity.len() == expected_velocity,
            "{len} parameters, {} gradients, {} of {expected_velocity} velocities",
            gradients.len(),
            velocity.len()
        );
        let update = |gradients, parameters, velocity| {
            pulp::Arch::new().dispatch(SgdUpdate {
                rule: *self,
                gradient_factor,
                gradients,
                parameters,
                velocity,
            });
        };
        if len <= TASK {
            return update(gradients, parameters, velocity);
        }
        let pairs = gradients
            .par_chunks(TASK)
            .zip(parameters.par_chunks_mut(TASK));
        if self.velocity.is_none() {
            pairs.for_each(|(gradients, parameters)| update(gradients, parameters, &mut []));
        } else {
            pairs.zip(velocity.par_chunks_mut(TASK)).for_each(
                |((gradients, parameters), velocity)| {
                    update(gradients, parameters, velocity);
                },
            );
        }
    }
}

struct SgdUpdate<'a> {
    rule: Sgd,
    gradient_factor: f32,
    gradients: &'a [f32],
    parameters: &'a mut [f32],
    velocity: &'a mut [f32],
}

impl WithSimd for SgdUpdate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Sgd {
            learning_rate,
            penalty,
            velocity: rule,
        } = self.rule;
        let factor = self.gradient_factor;
        let pairs = self.gradients.iter().zip(self.parameters);
        let Some(Velocity {
            momentum,
            share,
            nesterov,
        }) = rule
        else {
            for (gradient, parameter) in pairs {
                let gradient = factor * gradient + penalty * *parameter;
                *parameter -= learning_rate * gradient;
            }
            return;
        };
        for ((gradient, parameter), velocity) in pairs.zip(self.velocity) {
            let gradient = factor * gradient + penalty * *parameter;
            *velocity = momentum * *velocity + share * gradient;
            let direction = if nesterov {
                gradient + momentum * *velocity
            } else {
                *velocity
            };
            *parameter -= learning_rate * direction;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every instruction set of this machine, and no SIMD at all, gives the same bits.
    #[test]
    fn widths_agree_bit_for_bit() {
        fn run(dispatch: impl Fn(AdamUpdate<'_>), sgd: impl Fn(SgdUpdate<'_>)) -> Vec<u32> {
            let gradients: Vec<f32> = (0..101)
                .map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-3)
                .collect();
            let mut tensors = [0.5, 0.0, 0.0, 0.0].map(|value| vec![value; gradients.len()]);
            let [parameters, first, second, velocity] = &mut tensors;
            for step in 1..=5 {
                let decay = WeightDecay::Decoupled(0.1);
                dispatch(AdamUpdate {
                    rule: Adam::new([0.9, 0.999], 1e-8, decay, 1e-2, step),
                    gradient_factor: 0.3,
                    gradients: &gradients,
                    parameters,
                    first,
                    second,
                });
                let momentum = Momentum {
                    momentum: 0.9,
                    dampening: 0.1,
                    nesterov: true,
                };
                sgd(SgdUpdate {
                    rule: Sgd::new(0.01, Some(momentum), 1e-2, step),
                    gradient_factor: 0.3,
                    gradients: &gradients,
                    parameters,
                    velocity,
                });
            }
            tensors.concat().iter().map(|x| x.to_bits()).collect()
        }

        let scalar = pulp::Scalar::new();
        let reference = run(|op| scalar.vectorize(op), |op| scalar.vectorize(op));
        let arch = pulp::Arch::new();
        assert_eq!(
            run(|op| arch.dispatch(op), |op| arch.dispatch(op)),
            reference
        );
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V3::try_new() {
                assert_eq!(
                    run(
                        |op| Simd::vectorize(simd, op),
                        |op| Simd::vectorize(simd, op)
                    ),
                    reference
                );
            }
            if let Some(simd) = pulp::x86::V4::try_new() {
                assert_eq!(
                    run(
                        |op| Simd::vectorize(simd, op),
                        |op| Simd::vectorize(simd, op)
                    ),
                    reference
                );
            }
        }
    }
}
