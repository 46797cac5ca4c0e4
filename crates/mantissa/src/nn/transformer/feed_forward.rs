use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::{Activation, ActivationConfig};
use burn::tensor::{Device, Tensor, assert_shape};

use crate::nn::activation::activate;
use crate::nn::{Dropout, Linear};

/// Configuration of [`PositionWiseFeedForward`], as [`burn::nn::transformer::PositionWiseFeedForwardConfig`].
#[derive(Config, Debug)]
pub struct PositionWiseFeedForwardConfig {
    /// The size of the input and output features.
    pub d_model: usize,
    /// The size of the hidden inner features.
    pub d_ff: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// The activation between the two layers. Default: GELU
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
}

impl PositionWiseFeedForwardConfig {
    /// Initializes the module with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> PositionWiseFeedForward {
        burn::nn::transformer::PositionWiseFeedForwardConfig::new(self.d_model, self.d_ff)
            .with_dropout(self.dropout)
            .with_initializer(self.initializer.clone())
            .with_activation(self.activation.clone())
            .init(device)
            .into()
    }
}

/// Two linear layers with an activation between them, two sites.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct PositionWiseFeedForward {
    /// From `d_model` to `d_ff` features.
    pub linear_inner: Linear,
    /// From `d_ff` to `d_model` features.
    pub linear_outer: Linear,
    /// Dropout after the activation.
    pub dropout: Dropout,
    /// The activation; as in Burn, not part of the record.
    #[module(skip)]
    pub activation: Activation,
}

impl From<burn::nn::transformer::PositionWiseFeedForward> for PositionWiseFeedForward {
    /// Keeps the parameters and their ids.
    fn from(pwff: burn::nn::transformer::PositionWiseFeedForward) -> Self {
        Self {
            linear_inner: pwff.linear_inner.into(),
            linear_outer: pwff.linear_outer.into(),
            dropout: pwff.dropout.into(),
            activation: pwff.activation,
        }
    }
}

impl ModuleDisplay for PositionWiseFeedForward {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model, d_ff] = self.linear_inner.weight.shape().dims();
        content
            .add("d_model", &d_model)
            .add("d_ff", &d_ff)
            .add("prob", &self.dropout.prob)
            .optional()
    }
}

impl PositionWiseFeedForward {
    /// Applies both layers.
    ///
    /// # Shapes
    /// `[…, d_model] -> […, d_model]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let [d_model, _] = self.linear_inner.weight.shape().dims();
        assert_shape!(input, [.., d_model]);
        let x = self.linear_inner.forward(input);
        let x = self.dropout.forward(activate(&self.activation, x));
        self.linear_outer.forward(x)
    }
}
