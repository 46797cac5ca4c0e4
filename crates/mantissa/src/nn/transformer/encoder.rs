use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::ActivationConfig;
use burn::tensor::{Bool, Device, Tensor};

use super::PositionWiseFeedForward;
use super::sub_layer::{masked, position_wise};
use crate::nn::attention::{MhaCache, MhaInput, MultiHeadAttention};
use crate::nn::cache::TensorCache;
use crate::nn::{Dropout, LayerNorm};

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
        TransformerEncoder::from_burn(self.to_burn().init(device), self.layer_norm_eps)
    }

    fn to_burn(&self) -> burn::nn::transformer::TransformerEncoderConfig {
        burn::nn::transformer::TransformerEncoderConfig::new(
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

    /// As [`forward`](Self::forward), for inputs that grow by one position at their end from call to call: from the
    /// second on, only the last position is computed.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerEncoderInput,
        cache: &mut TransformerEncoderAutoregressiveCache,
    ) -> Tensor<3> {
        let layers = self.layers.iter().zip(&mut cache.layers);
        layers.fold(input.tensor, |x, (layer, cache)| {
            let (mask_pad, mask_attn) = (input.mask_pad.clone(), input.mask_attn.clone());
            layer.forward_autoregressive_inference(x, mask_pad, mask_attn, cache)
        })
    }

    /// An empty cache for [`forward_autoregressive_inference`](Self::forward_autoregressive_inference).
    pub fn new_autoregressive_cache(&self) -> TransformerEncoderAutoregressiveCache {
        let empty = |_| TransformerEncoderLayerAutoregressiveCache::empty();
        TransformerEncoderAutoregressiveCache {
            layers: self.layers.iter().map(empty).collect(),
        }
    }
}

/// What a [`TransformerEncoder`] computed of the positions that it has seen.
pub struct TransformerEncoderAutoregressiveCache {
    layers: Vec<TransformerEncoderLayerAutoregressiveCache>,
}

/// What a [`TransformerEncoderLayer`] computed of the positions that it has seen.
pub struct TransformerEncoderLayerAutoregressiveCache {
    /// Of its attention.
    pub mha: MhaCache,
    /// Of its feed-forward sub-layer.
    pub pwff: TensorCache<3>,
    /// Of `norm_1`.
    pub norm_1: TensorCache<3>,
    /// Of `norm_2`.
    pub norm_2: TensorCache<3>,
}

impl TransformerEncoderLayerAutoregressiveCache {
    /// A cache that has seen nothing.
    pub fn empty() -> Self {
        Self {
            mha: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
        }
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
        let layer = burn::nn::transformer::TransformerEncoderLayer::new(&config.to_burn(), device);
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
        self.apply(input, mask_pad, mask_attn, None)
    }

    /// As [`forward`](Self::forward), for inputs that grow by one position at their end from call to call.
    pub fn forward_autoregressive_inference(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
        cache: &mut TransformerEncoderLayerAutoregressiveCache,
    ) -> Tensor<3> {
        self.apply(input, mask_pad, mask_attn, Some(cache))
    }

    fn apply(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
        mut cache: Option<&mut TransformerEncoderLayerAutoregressiveCache>,
    ) -> Tensor<3> {
        macro_rules! cached {
            ($field:ident) => {
                cache.as_deref_mut().map(|cache| &mut cache.$field)
            };
        }

        let attended = if self.norm_first {
            position_wise(cached!(norm_2), input.clone(), |x| self.norm_2.forward(x))
        } else {
            input.clone()
        };
        let attention = masked(MhaInput::self_attn(attended), mask_pad, mask_attn);
        let attended = self.mha.context(attention, cached!(mha));
        let x = self.dropout.forward_add(attended, input);

        let fed = position_wise(cached!(norm_1), x.clone(), |x| self.norm_1.forward(x));
        let x = if self.norm_first { x } else { fed.clone() };
        let fed = position_wise(cached!(pwff), fed, |x| self.pwff.forward(x));
        let x = self.dropout.forward_add(fed, x);
        if self.norm_first {
            x
        } else {
            position_wise(cached!(norm_2), x, |x| self.norm_2.forward(x))
        }
    }
}
