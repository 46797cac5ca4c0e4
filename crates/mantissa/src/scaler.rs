//! Loss scaling: multiplying the loss, and so every gradient, so that small gradients survive in narrow formats.
//!
//! The types carry the order of things: a loss becomes a [`ScaledLoss`], its backward pass gives
//! [`ScaledGradients`] that remember their scale, and only
//! [`MasterOptimizer::step`](crate::MasterOptimizer::step) takes those, unscales them by *that* scale, and then lets
//! the scaler move.

use burn::tensor::{Gradients, Tensor};
use mantissa_plan::{LossScaling, Plan};
use serde::{Deserialize, Serialize};

/// Decides the loss scale of each step. Serializable: its state belongs into every checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossScaler {
    /// The loss is not scaled. Non-finite gradients still skip the step.
    None,
    /// The same scale in every step (Micikevicius et al. 2018, section 3.2).
    Constant(f32),
    /// A scale that follows the gradients.
    Dynamic(DynamicScaler),
}

/// The constants of a [`DynamicScaler`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicConfig {
    /// The first scale.
    pub init_scale: f32,
    /// What the scale is multiplied with after `growth_interval` clean steps.
    pub growth_factor: f32,
    /// What the scale is multiplied with after an overflow.
    pub backoff_factor: f32,
    /// Clean steps in a row before the scale grows.
    pub growth_interval: u32,
    /// The scale never backs off below this.
    pub min_scale: f32,
}

impl Default for DynamicConfig {
    /// The constants of `torch.amp.GradScaler` (`torch/amp/grad_scaler.py`): 2^16, 2, 0.5, 2000; and a smallest
    /// scale of 1, where PyTorch has none and may reach 0.
    fn default() -> Self {
        Self {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            min_scale: 1.0,
        }
    }
}

/// Scale that backs off when gradients overflow and grows after a stretch of clean steps, as
/// `torch.amp.GradScaler` does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicScaler {
    config: DynamicConfig,
    scale: f32,
    clean_steps: u32,
}

impl DynamicScaler {
    /// A scaler at its initial scale.
    pub fn new(config: DynamicConfig) -> Self {
        Self {
            config,
            scale: config.init_scale,
            clean_steps: 0,
        }
    }

    fn update(&mut self, overflowed: bool) {
        if overflowed {
            self.scale = (self.scale * self.config.backoff_factor).max(self.config.min_scale);
            self.clean_steps = 0;
            return;
        }
        self.clean_steps += 1;
        if self.clean_steps >= self.config.growth_interval {
            self.clean_steps = 0;
            let grown = self.scale * self.config.growth_factor;
            if grown.is_finite() {
                self.scale = grown;
            }
        }
    }
}

impl LossScaler {
    /// A dynamic scaler.
    pub fn dynamic(config: DynamicConfig) -> Self {
        Self::Dynamic(DynamicScaler::new(config))
    }

    /// The scaler that `plan` asks for, with default constants.
    pub fn for_plan(plan: &Plan) -> Self {
        match plan.loss_scaling {
            LossScaling::None => Self::None,
            LossScaling::Constant(scale) => Self::Constant(scale),
            LossScaling::Dynamic => Self::dynamic(DynamicConfig::default()),
        }
    }

    /// The scale of the next loss.
    pub fn loss_scale(&self) -> f32 {
        match self {
            Self::None => 1.0,
            Self::Constant(scale) => *scale,
            Self::Dynamic(scaler) => scaler.scale,
        }
    }

    /// Multiplies `loss` by the current scale.
    pub fn scale(&self, loss: Tensor<1>) -> ScaledLoss {
        let loss_scale = self.loss_scale();
        let unscaled = loss.clone().detach();
        let scaled = if loss_scale == 1.0 {
            loss
        } else {
            loss.mul_scalar(loss_scale)
        };
        ScaledLoss {
            scaled,
            unscaled,
            loss_scale,
        }
    }

    /// Moves the scale after a step whose gradients were finite, or `overflowed`.
    pub fn update(&mut self, overflowed: bool) {
        if let Self::Dynamic(scaler) = self {
            scaler.update(overflowed);
        }
    }
}

/// A loss times its scale.
#[derive(Debug)]
pub struct ScaledLoss {
    scaled: Tensor<1>,
    unscaled: Tensor<1>,
    loss_scale: f32,
}

impl ScaledLoss {
    /// The backward pass.
    pub fn backward(self) -> ScaledGradients {
        ScaledGradients {
            gradients: self.scaled.backward(),
            loss: self.unscaled,
            loss_scale: self.loss_scale,
        }
    }
}

/// Gradients of a scaled loss, with the scale they carry.
pub struct ScaledGradients {
    pub(crate) gradients: Gradients,
    pub(crate) loss: Tensor<1>,
    pub(crate) loss_scale: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trajectory(config: DynamicConfig, overflows: &[bool]) -> Vec<f32> {
        let mut scaler = LossScaler::dynamic(config);
        overflows
            .iter()
            .map(|&overflowed| {
                scaler.update(overflowed);
                scaler.loss_scale()
            })
            .collect()
    }

    #[test]
    fn scale_is_init_times_growth_and_backoff_powers() {
        let config = DynamicConfig {
            init_scale: 8.0,
            growth_interval: 2,
            ..DynamicConfig::default()
        };
        let overflows = [
            false, false, true, false, true, true, false, false, false, false,
        ];
        assert_eq!(
            trajectory(config, &overflows),
            [8.0, 16.0, 8.0, 8.0, 4.0, 2.0, 2.0, 4.0, 4.0, 8.0]
        );
    }

    #[test]
    fn overflow_resets_the_stretch_of_clean_steps() {
        let config = DynamicConfig {
            growth_interval: 3,
            ..DynamicConfig::default()
        };
        let overflows = [false, false, true, false, false, false];
        let last = *trajectory(config, &overflows).last().unwrap();
        assert_eq!(last, 65536.0);
    }

    #[test]
    fn scale_stays_within_its_bounds() {
        let config = DynamicConfig {
            init_scale: 2.0,
            ..DynamicConfig::default()
        };
        assert_eq!(trajectory(config, &[true; 5]), [1.0; 5]);

        let config = DynamicConfig {
            init_scale: f32::MAX,
            growth_interval: 1,
            ..DynamicConfig::default()
        };
        assert_eq!(trajectory(config, &[false; 3]), [f32::MAX; 3]);
    }

    #[test]
    fn state_survives_serialization_in_the_middle_of_a_stretch() {
        let config = DynamicConfig {
            growth_interval: 4,
            ..DynamicConfig::default()
        };
        let mut scaler = LossScaler::dynamic(config);
        for overflowed in [true, false, false] {
            scaler.update(overflowed);
        }
        let text = serde_json::to_string(&scaler).unwrap();
        let mut resumed: LossScaler = serde_json::from_str(&text).unwrap();
        for _ in 0..5 {
            scaler.update(false);
            resumed.update(false);
            assert_eq!(resumed, scaler);
        }
        assert_eq!(resumed.loss_scale(), 65536.0);
    }
}
