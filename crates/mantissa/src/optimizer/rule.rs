//! The update rules: their settings, what they remember of a parameter, and one step of each.

use burn::config::Config;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use mantissa_kernels::optimizer::{Adam, Momentum, Sgd, WeightDecay};

use super::state::ParameterState;

/// AdamW ([Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101), algorithm 2) with the names and defaults of
/// Burn's [`AdamWConfig`](burn::optim::AdamWConfig), but for epsilon.
#[derive(Config, Debug, PartialEq)]
pub struct AdamWConfig {
    /// How much of the first moment is kept.
    #[config(default = 0.9)]
    pub beta_1: f32,
    /// How much of the second moment is kept.
    #[config(default = 0.999)]
    pub beta_2: f32,
    /// What keeps the division finite where all gradients are tiny. Kingma and Ba's value, as in PyTorch: Burn's 1e-5
    /// slows parameters whose gradients are not far above it, as they often are in low precision.
    #[config(default = 1e-8)]
    pub epsilon: f32,
    /// What share of itself a parameter loses in a step, times the learning rate.
    #[config(default = 1e-4)]
    pub weight_decay: f32,
}

/// Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980), algorithm 1) with the names and defaults of Burn's
/// [`AdamConfig`](burn::optim::AdamConfig), but for epsilon.
#[derive(Config, Debug)]
pub struct AdamConfig {
    /// How much of the first moment is kept.
    #[config(default = 0.9)]
    pub beta_1: f32,
    /// How much of the second moment is kept.
    #[config(default = 0.999)]
    pub beta_2: f32,
    /// As in [`AdamWConfig`].
    #[config(default = 1e-8)]
    pub epsilon: f32,
    /// An L2 penalty, whose gradient is added to that of the loss.
    pub weight_decay: Option<WeightDecayConfig>,
}

/// Stochastic gradient descent with the names and defaults of Burn's [`SgdConfig`](burn::optim::SgdConfig), to whose
/// bits it comes.
#[derive(Config, Debug)]
pub struct SgdConfig {
    /// An L2 penalty, whose gradient is added to that of the loss.
    pub weight_decay: Option<WeightDecayConfig>,
    /// Momentum. Mind that Burn's default dampens it by 0.1, and PyTorch's does not.
    pub momentum: Option<MomentumConfig>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// A rule for updating parameters in place.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    AdamW(AdamWConfig),
    Adam(AdamConfig),
    Sgd(SgdConfig),
}

impl Rule {
    /// Its name in records.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Adam(_) => "adam",
            Self::Sgd(_) => "sgd",
        }
    }

    /// The buffers it remembers of each parameter, each as long as the parameter and zero at first.
    pub(super) fn buffers(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW(_) | Self::Adam(_) => &["first_moment", "second_moment"],
            Self::Sgd(SgdConfig {
                momentum: Some(_), ..
            }) => &["velocity"],
            Self::Sgd(_) => &[],
        }
    }

    /// Panics on settings that no step can be taken with.
    pub(super) fn check(&self) {
        self.adam(0.0, 1);
    }

    /// Takes a parameter's next step. `state` has the rule's buffers, as long as the parameter.
    pub(super) fn update(
        &self,
        learning_rate: f64,
        gradient_factor: f32,
        gradients: &[f32],
        parameters: &mut [f32],
        state: &mut ParameterState,
    ) {
        state.steps += 1;
        let step = state.steps;
        let buffers = state.buffers.as_mut_slice();
        if let Some(adam) = self.adam(learning_rate, step)
            && let [first, second] = buffers
        {
            adam.update(gradient_factor, gradients, parameters, first, second);
        } else if let Self::Sgd(config) = self {
            let momentum = config.momentum.as_ref().map(|of| Momentum {
                momentum: of.momentum,
                dampening: of.dampening,
                nesterov: of.nesterov,
            });
            let velocity = buffers.first_mut().map_or(&mut [][..], |velocity| velocity);
            Sgd::new(penalty(&config.weight_decay), momentum, learning_rate, step).update(
                gradient_factor,
                gradients,
                parameters,
                velocity,
            );
        }
    }

    fn adam(&self, learning_rate: f64, step: u64) -> Option<Adam> {
        let (betas, epsilon, decay) = match self {
            Self::AdamW(config) => (
                [config.beta_1, config.beta_2],
                config.epsilon,
                WeightDecay::Decoupled(config.weight_decay),
            ),
            Self::Adam(config) => (
                [config.beta_1, config.beta_2],
                config.epsilon,
                WeightDecay::L2(penalty(&config.weight_decay)),
            ),
            Self::Sgd(_) => return None,
        };
        Some(Adam::new(betas, epsilon, decay, learning_rate, step))
    }
}

fn penalty(decay: &Option<WeightDecayConfig>) -> f32 {
    decay.as_ref().map_or(0.0, |decay| decay.penalty)
}
