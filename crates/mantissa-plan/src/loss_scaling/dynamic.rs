//! A scale that backs off at overflows and grows after clean steps.

use serde::{Deserialize, Serialize};

use super::bounds_problem;

/// The smallest scale of presets whose origin has none: the smallest normal f32. Below it a scale loses digits.
const SMALLEST: f32 = f32::MIN_POSITIVE;

/// Settings of a scale that backs off when gradients overflow and grows after a stretch of clean steps.
///
/// The scale after step `t` is, with `c` the clean steps since the start or the last overflow and `h` the overflows that
/// are still tolerated (`hysteresis` at first):
///
/// | step | condition | next scale |
/// |---|---|---|
/// | overflow | `h > 1` | the same, and `h - 1` |
/// | overflow | `h <= 1` | `max(scale * backoff_factor, min_scale)` |
/// | clean | `c - settle_steps` is a positive multiple of `growth_interval` | `min(scale * growth_factor, max_scale)`; the same if that is no finite f32 |
/// | clean | otherwise | the same |
///
/// Growth fills `h` up again, and so does every clean step with `consecutive_hysteresis`. Products are computed in f64
/// and rounded to f32 once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicScaling {
    /// The first scale.
    pub init_scale: f32,
    /// What the scale is multiplied with when it grows, above 1.
    pub growth_factor: f64,
    /// What the scale is multiplied with when it backs off, between 0 and 1.
    pub backoff_factor: f64,
    /// Clean steps in a row before the scale grows.
    pub growth_interval: u32,
    /// Clean steps after the start and after an overflow that do not count towards `growth_interval`.
    pub settle_steps: u32,
    /// The scale backs off at this many overflows since `hysteresis` was last filled up, and at each one after; 1 is at once.
    pub hysteresis: u32,
    /// A clean step fills the tolerated overflows up, so that only overflows in a row make the scale back off.
    pub consecutive_hysteresis: bool,
    /// The scale never backs off below this.
    pub min_scale: f32,
    /// The scale never grows above this.
    pub max_scale: f32,
    /// An overflow at the smallest scale ends training, instead of skipping one more step.
    pub stop_at_min: bool,
}

impl DynamicScaling {
    /// The default: `torch.amp.GradScaler`'s constants (2^16, 2, 0.5, 2000), but never below 1, where overflows have
    /// another cause than the scale, nor above 2^24, as in apex.
    pub const DEFAULT: Self = Self {
        init_scale: 65536.0,
        growth_factor: 2.0,
        backoff_factor: 0.5,
        growth_interval: 2000,
        settle_steps: 0,
        hysteresis: 1,
        consecutive_hysteresis: false,
        min_scale: 1.0,
        max_scale: 16777216.0,
        stop_at_min: false,
    };

    /// `torch.amp.GradScaler` (`torch/amp/grad_scaler.py`). It has no bounds but those of f32; only the lower one
    /// differs: the scale stays at 2^-126, where PyTorch's goes on to 0.
    pub const TORCH_AMP: Self = Self {
        min_scale: SMALLEST,
        max_scale: f32::MAX,
        ..Self::DEFAULT
    };

    /// The `LossScaler` of NVIDIA's apex (`apex/amp/scaler.py` before its removal): torch's, with at most 2^24.
    pub const APEX: Self = Self {
        max_scale: 16777216.0,
        ..Self::TORCH_AMP
    };

    /// DeepSpeed's `DynamicLossScaler` with the defaults of its `fp16` configuration (`runtime/fp16/loss_scaler.py`,
    /// `runtime/precision_config.py`): two overflows before it backs off, filled up at growth only, at least 1, where
    /// one more overflow is an error; the first clean step after the start and after an overflow does not count.
    pub const DEEPSPEED: Self = Self {
        growth_interval: 1000,
        settle_steps: 1,
        hysteresis: 2,
        max_scale: f32::MAX,
        stop_at_min: true,
        ..Self::DEFAULT
    };

    /// Megatron-LM's `DynamicGradScaler` (`megatron/core/optimizer/grad_scaler.py`) with its defaults. Its hysteresis is
    /// documented as consecutive, but as here only growth fills it up.
    pub const MEGATRON: Self = Self {
        init_scale: 4294967296.0,
        settle_steps: 0,
        stop_at_min: false,
        ..Self::DEEPSPEED
    };

    pub(super) fn problem(&self) -> Option<String> {
        bounds_problem(self.init_scale, self.min_scale, self.max_scale).or_else(|| {
            if !(self.growth_factor.is_finite() && self.growth_factor > 1.0) {
                Some(format!(
                    "growth_factor must be finite and above 1, not {}; otherwise the scale never grows",
                    self.growth_factor
                ))
            } else if !(self.backoff_factor > 0.0 && self.backoff_factor < 1.0) {
                Some(format!(
                    "backoff_factor must be between 0 and 1, not {}; otherwise overflows never end",
                    self.backoff_factor
                ))
            } else if self.growth_interval == 0 {
                Some("growth_interval must be at least 1 step".to_string())
            } else if self.hysteresis == 0 {
                Some("hysteresis must be at least 1; 1 backs off at the first overflow".to_string())
            } else {
                None
            }
        })
    }
}
