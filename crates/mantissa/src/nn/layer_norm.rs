use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::Initializer;
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor, assert_shape};

use crate::{fused, session};

/// Configuration of a [`LayerNorm`] layer, as [`burn::nn::LayerNormConfig`].
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// The size of the input features.
    pub d_model: usize,
    /// A value required for numerical stability. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether a bias (beta) is added. Default: true
    #[config(default = true)]
    pub bias: bool,
}

impl LayerNormConfig {
    /// Initializes a [`LayerNorm`] layer: gamma one, beta zero.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            gamma: Initializer::Ones.init([self.d_model], device),
            beta: self
                .bias
                .then(|| Initializer::Zeros.init([self.d_model], device)),
            epsilon: self.epsilon,
        }
    }
}

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis: [`burn::nn::LayerNorm`] that is one
/// fused operation inside an autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LayerNorm {
    /// The learnable scale.
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Keeps the parameters and their ids. Burn's layer does not tell its `epsilon`.
    pub fn from_burn(norm: burn::nn::LayerNorm, epsilon: f64) -> Self {
        Self {
            gamma: norm.gamma,
            beta: norm.beta,
            epsilon,
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// `[…, d_model] -> […, d_model]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        assert_shape!(input, [.., d_model]);
        let beta = self.beta.as_ref().map(|beta| beta.val());
        if session::is_fused() {
            fused::layer_norm(input, gamma, beta, self.epsilon)
        } else {
            layer_norm(input, gamma, beta, self.epsilon)
        }
    }
}

impl ModuleDisplay for LayerNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content
            .add("d_model", &d_model)
            .add("epsilon", &self.epsilon)
            .add("bias", &self.beta.is_some())
            .optional()
    }
}
