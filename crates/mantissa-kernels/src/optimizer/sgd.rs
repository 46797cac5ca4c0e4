//! Stochastic gradient descent.

use pulp::{Simd, WithSimd};

use crate::state::{self, StateView};
use crate::vector::dispatch;

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
    /// If the lengths differ.
    pub fn update(
        &self,
        gradient_factor: f32,
        gradients: &[f32],
        parameters: &mut [f32],
        velocity: StateView<'_>,
    ) {
        let len = parameters.len();
        let expected_velocity = self.velocity.map_or(0, |_| len);
        assert!(
            gradients.len() == len && velocity.len() == expected_velocity,
            "{len} parameters, {} gradients, {} of {expected_velocity} velocities",
            gradients.len(),
            velocity.len()
        );
        let apply = |gradients: &[f32], parameters: &mut [f32], velocity: &mut [f32]| {
            dispatch(SgdUpdate {
                rule: *self,
                gradient_factor,
                gradients,
                parameters,
                velocity,
            });
        };
        if self.velocity.is_none() {
            state::update(gradients, parameters, [], &|gradients, parameters, []| {
                apply(gradients, parameters, &mut []);
            });
        } else {
            state::update(
                gradients,
                parameters,
                [velocity],
                &|gradients, parameters, [velocity]| {
                    apply(gradients, parameters, velocity);
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
