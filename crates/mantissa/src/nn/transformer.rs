//! [`burn::nn::transformer`], with an encoder that follows the current autocast. The decoder is still Burn's.

pub use burn::nn::transformer::*;

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::{Activation, ActivationConfig};
use burn::tensor::{Bool, Device, Tensor, assert_shape};

use super::activation::activate;
use super::attention::{MhaInput, MultiHeadAttention};
use super::{Dropout, LayerNorm, Linear};

/// Configuration of [`TransformerEncoder`], as [`burn::nn::transformer::TransformerEncoderConfig`].
#[derive(Config, Debug)]
pub struct TransformerEncoderConfig {
    /// The size of the model.
    pub d_model: usize,
    /// The size of the position-wise feed-forward network.
    pub d_ff: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Normalize before instead of after each sub-layer. Default: false
    #[config(default = false)]
    pub norm_first: bool,
    /// Use "quiet softmax" instead of softmax. Default: false
    #[config(default = false)]
    pub quiet_softmax: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// The activation of the feed-forward network. Default: GELU
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
    /// The epsilon of layer normalization. Default: 1e-5
    #[config(default = 1e-5)]
    pub layer_norm_eps: f64,
}

impl TransformerEncoderConfig {
    /// Initializes the module with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> TransformerEncoder {
        let encoder = burn::nn::transformer::TransformerEncoderConfig::new(
            self.d_model,
            self.d_ff,
            self.n_heads,
            self.n_layers,
        )
        .with_dropout(self.dropout)
        .with_norm_first(self.norm_first)
        .with_quiet_softmax(self.quiet_softmax)
        .with_initializer(self.initializer.clone())
        .with_activation(self.activation.clone())
        .with_layer_norm_eps(self.layer_norm_eps)
        .init(device);
        TransformerEncoder::from_burn(encoder, self.layer_norm_eps)
    }
}

/// A stack of transformer encoder layers.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct TransformerEncoder {
    /// The layers.
    pub layers: Vec<TransformerEncoderLayer>,
    /// The size of the model.
    pub d_model: usize,
    /// The size of the position-wise feed-forward network.
    pub d_ff: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The dropout rate.
    pub dropout: f64,
    /// Whether normalization comes before instead of after each sub-layer.
    pub norm_first: bool,
    /// Use "quiet softmax" instead of softmax.
    pub quiet_softmax: bool,
}

impl TransformerEncoder {
    /// Keeps the parameters and their ids. Burn's layers do not tell the epsilon of their normalization.
    pub fn from_burn(
        encoder: burn::nn::transformer::TransformerEncoder,
        layer_norm_eps: f64,
    ) -> Self {
        let layer = |layer| TransformerEncoderLayer::from_burn(layer, layer_norm_eps);
        Self {
            layers: encoder.layers.into_iter().map(layer).collect(),
            d_model: encoder.d_model,
            d_ff: encoder.d_ff,
            n_heads: encoder.n_heads,
            n_layers: encoder.n_layers,
            dropout: encoder.dropout,
            norm_first: encoder.norm_first,
            quiet_softmax: encoder.quiet_softmax,
        }
    }
}

impl ModuleDisplay for TransformerEncoder {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_model", &self.d_model)
            .add("d_ff", &self.d_ff)
            .add("n_heads", &self.n_heads)
            .add("n_layers", &self.n_layers)
            .add("dropout", &self.dropout)
            .add("norm_first", &self.norm_first)
            .add("quiet_softmax", &self.quiet_softmax)
            .optional()
    }
}

/// Input of [`TransformerEncoder`], as [`burn::nn::transformer::TransformerEncoderInput`].
#[derive(Debug)]
pub struct TransformerEncoderInput {
    tensor: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerEncoderInput {
    /// Input of shape `[batch_size, seq_length, d_model]`.
    pub fn new(tensor: Tensor<3>) -> Self {
        Self {
            tensor,
            mask_pad: None,
            mask_attn: None,
        }
    }

    /// Masks the positions for which `mask_pad`, `[batch_size, seq_length]`, is true.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Masks the pairs for which `mask_attn`, `[batch_size, seq_length, seq_length]`, is true.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }
}

impl TransformerEncoder {
    /// Applies all layers.
    ///
    /// # Shapes
    /// `[batch_size, seq_length, d_model] -> [batch_size, seq_length, d_model]`
    pub fn forward(&self, input: TransformerEncoderInput) -> Tensor<3> {
        self.layers.iter().fold(input.tensor, |x, layer| {
            layer.forward(x, input.mask_pad.clone(), input.mask_attn.clone())
        })
    }
}

/// One transformer encoder layer.
#[derive(Module, Debug)]
pub struct TransformerEncoderLayer {
    /// Multi-head self-attention sub-layer.
    pub mha: MultiHeadAttention,
    /// Position-wise feed-forward sub-layer.
    pub pwff: PositionWiseFeedForward,
    /// Normalization around the feed-forward sub-layer.
    pub norm_1: LayerNorm,
    /// Normalization around the attention sub-layer.
    pub norm_2: LayerNorm,
    /// Dropout of the residual connections.
    pub dropout: Dropout,
    /// Whether normalization comes before instead of after each sub-layer.
    pub norm_first: bool,
}

impl TransformerEncoderLayer {
    /// Keeps the parameters and their ids. Burn's layers do not tell the epsilon of their normalization.
    pub fn from_burn(
        layer: burn::nn::transformer::TransformerEncoderLayer,
        layer_norm_eps: f64,
    ) -> Self {
        Self {
            mha: layer.mha.into(),
            pwff: layer.pwff.into(),
            norm_1: LayerNorm::from_burn(layer.norm_1, layer_norm_eps),
            norm_2: LayerNorm::from_burn(layer.norm_2, layer_norm_eps),
            dropout: layer.dropout.into(),
            norm_first: layer.norm_first,
        }
    }
}

impl TransformerEncoderLayer {
    /// Initializes one layer with the parameters that Burn's would get.
    pub fn new(config: &TransformerEncoderConfig, device: &Device) -> Self {
        let burns = burn::nn::transformer::TransformerEncoderConfig::new(
            config.d_model,
            config.d_ff,
            config.n_heads,
            1,
        )
        .with_dropout(config.dropout)
        .with_norm_first(config.norm_first)
        .with_quiet_softmax(config.quiet_softmax)
        .with_initializer(config.initializer.clone())
        .with_activation(config.activation.clone())
        .with_layer_norm_eps(config.layer_norm_eps);
        let layer = burn::nn::transformer::TransformerEncoderLayer::new(&burns, device);
        Self::from_burn(layer, config.layer_norm_eps)
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch_size, seq_length, d_model] -> [batch_size, seq_length, d_model]`
    pub fn forward(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
    ) -> Tensor<3> {
        let attended = if self.norm_first {
            self.norm_2.forward(input.clone())
        } else {
            input.clone()
        };
        let mut attention = MhaInput::self_attn(attended);
        if let Some(mask) = mask_pad {
            attention = attention.mask_pad(mask);
        }
        if let Some(mask) = mask_attn {
            attention = attention.mask_attn(mask);
        }
        let attended = self.mha.context(attention);
        let mut x = self.dropout.forward_add(attended, input);

        let fed = if self.norm_first {
            self.norm_1.forward(x.clone())
        } else {
            x = self.norm_1.forward(x);
            x.clone()
        };
        let x = self.dropout.forward_add(self.pwff.forward(fed), x);
        if self.norm_first {
            x
        } else {
            self.norm_2.forward(x)
        }
    }
}

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
