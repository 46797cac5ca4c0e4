//! The settings of the update rules.

use burn::config::Config;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;

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

/// LAMB ([You et al. 2020](https://arxiv.org/abs/1904.00962), algorithm 2) with the names and defaults of Burn's
/// [`LambConfig`](burn::optim::LambConfig).
#[derive(Config, Debug)]
pub struct LambConfig {
    /// How much of the first moment is kept.
    #[config(default = 0.9)]
    pub beta_1: f32,
    /// How much of the second moment is kept.
    #[config(default = 0.999)]
    pub beta_2: f32,
    /// What keeps the division finite.
    #[config(default = 1e-6)]
    pub epsilon: f32,
    /// What share of itself is added to a parameter's direction.
    #[config(default = 0.0)]
    pub weight_decay: f32,
    /// Whether a step is in proportion to the norm of its tensor.
    #[config(default = true)]
    pub use_trust_ratio: bool,
}

/// Adafactor ([Shazeer and Stern 2018](https://arxiv.org/abs/1804.04235)) with the names and defaults of Burn's
/// [`AdafactorConfig`](burn::optim::AdafactorConfig): of a matrix it remembers a moment for each row and each column.
#[derive(Config, Debug)]
pub struct AdafactorConfig {
    /// What is added to squared gradients, so that none is zero.
    #[config(default = 1e-30)]
    pub epsilon_1: f32,
    /// The least root mean square that a parameter counts with.
    #[config(default = 1e-3)]
    pub epsilon_2: f32,
    /// The largest root mean square of an update, before the learning rate.
    #[config(default = 1.0)]
    pub clip_threshold: f32,
    /// A new squared gradient weighs `step^decay_rate`; negative.
    #[config(default = -0.8)]
    pub decay_rate: f64,
    /// Whether a step is `1 / sqrt(step)` at most.
    #[config(default = true)]
    pub relative_step: bool,
    /// Whether a step is relative to the root mean square of the parameter.
    #[config(default = true)]
    pub scale_parameter: bool,
    /// What share of itself a parameter loses in a step, times the learning rate.
    #[config(default = 0.0)]
    pub weight_decay: f32,
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

impl Default for LambConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// The rate of an L2 penalty, 0 for none.
pub(super) fn penalty(decay: &Option<WeightDecayConfig>) -> f32 {
    decay.as_ref().map_or(0.0, |decay| decay.penalty)
}
