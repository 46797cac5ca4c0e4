use burn::config::Config;
use burn::module::{Content, DisplaySettings, Flag, Module, ModuleDisplay, Param};
use burn::tensor::Tensor;

use crate::{fused, session};

/// Configuration of a [`Dropout`] layer, as [`burn::nn::DropoutConfig`].
#[derive(Config, Debug)]
pub struct DropoutConfig {
    /// The probability with which an element is zeroed in training.
    pub prob: f64,
}

impl DropoutConfig {
    /// Initializes a [`Dropout`] layer.
    ///
    /// # Panics
    /// If the probability is not in `[0, 1)`.
    pub fn init(&self) -> Dropout {
        burn::nn::DropoutConfig::new(self.prob).init().into()
    }
}

/// Zeroes elements at random in training and scales the others by `1 / (1 - prob)`: [`burn::nn::Dropout`] that stores
/// no mask inside an autocast.
///
/// There the mask is drawn from counter-based bits whose stream is drawn from the device's generator, so that
/// [`Device::seed`](burn::tensor::Device::seed) makes it repeatable.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Dropout {
    /// The probability with which an element is zeroed in training.
    pub prob: f64,
    /// Whether to behave as in training.
    pub training: Param<Flag>,
}

impl From<burn::nn::Dropout> for Dropout {
    fn from(dropout: burn::nn::Dropout) -> Self {
        Self {
            prob: dropout.prob,
            training: dropout.training,
        }
    }
}

impl Dropout {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[…] -> […]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if !self.is_active(&input) {
            return input;
        }
        if session::is_fused() {
            return fused::dropout(input, self.prob);
        }
        let keep = 1.0 - self.prob;
        let mask = input.random_like(burn::tensor::Distribution::Bernoulli(keep));
        input * mask * (1.0 / keep)
    }

    /// `residual + self.forward(input)`.
    pub(crate) fn forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Tensor<D> {
        if self.is_active(&input) && session::is_fused() {
            fused::dropout_add(input, residual, self.prob)
        } else {
            residual + self.forward(input)
        }
    }

    /// Whether `input` would lose elements.
    pub(crate) fn is_active<const D: usize>(&self, input: &Tensor<D>) -> bool {
        self.training.is_enabled() && input.device().is_autodiff() && self.prob > 0.0
    }
}

impl ModuleDisplay for Dropout {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("prob", &self.prob);
        if self.training.is_enabled() {
            content.optional()
        } else {
            content.add("training", &self.training).optional()
        }
    }
}
