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

/// Configuration of [`TransformerDecoder`], as [`burn::nn::transformer::TransformerDecoderConfig`].
#[derive(Config, Debug)]
pub struct TransformerDecoderConfig {
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

impl TransformerDecoderConfig {
    /// Initializes the module with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> TransformerDecoder {
        TransformerDecoder::from_burn(self.to_burn().init(device), self.layer_norm_eps)
    }

    fn to_burn(&self) -> burn::nn::transformer::TransformerDecoderConfig {
        burn::nn::transformer::TransformerDecoderConfig::new(
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

/// A stack of transformer decoder layers.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct TransformerDecoder {
    /// The layers.
    pub layers: Vec<TransformerDecoderLayer>,
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

impl TransformerDecoder {
    /// Keeps the parameters and their ids. Burn's layers do not tell the epsilon of their normalization.
    pub fn from_burn(
        decoder: burn::nn::transformer::TransformerDecoder,
        layer_norm_eps: f64,
    ) -> Self {
        let layer = |layer| TransformerDecoderLayer::from_burn(layer, layer_norm_eps);
        Self {
            layers: decoder.layers.into_iter().map(layer).collect(),
            d_model: decoder.d_model,
            d_ff: decoder.d_ff,
            n_heads: decoder.n_heads,
            n_layers: decoder.n_layers,
            dropout: decoder.dropout,
            norm_first: decoder.norm_first,
            quiet_softmax: decoder.quiet_softmax,
        }
    }
}

impl ModuleDisplay for TransformerDecoder {
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

/// Input of [`TransformerDecoder`], as [`burn::nn::transformer::TransformerDecoderInput`].
#[derive(Debug)]
pub struct TransformerDecoderInput {
    target: Tensor<3>,
    target_mask_pad: Option<Tensor<2, Bool>>,
    target_mask_attn: Option<Tensor<3, Bool>>,
    memory: Tensor<3>,
    memory_mask_pad: Option<Tensor<2, Bool>>,
    memory_mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerDecoderInput {
    /// A target `[batch_size, target_length, d_model]`, which is decoded, and a memory
    /// `[batch_size, memory_length, d_model]`, which it attends to.
    pub fn new(target: Tensor<3>, memory: Tensor<3>) -> Self {
        Self {
            target,
            target_mask_pad: None,
            target_mask_attn: None,
            memory,
            memory_mask_pad: None,
            memory_mask_attn: None,
        }
    }

    /// Masks the memory's positions for which `mask_pad`, `[batch_size, memory_length]`, is true.
    pub fn memory_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.memory_mask_pad = Some(mask_pad);
        self
    }

    /// Masks the pairs for which `mask_attn`, `[batch_size, target_length, memory_length]`, is true.
    pub fn memory_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.memory_mask_attn = Some(mask_attn);
        self
    }

    /// Masks the target's positions for which `mask_pad`, `[batch_size, target_length]`, is true.
    pub fn target_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.target_mask_pad = Some(mask_pad);
        self
    }

    /// Masks the pairs for which `mask_attn`, `[batch_size, target_length, target_length]`, is true.
    pub fn target_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.target_mask_attn = Some(mask_attn);
        self
    }
}

impl TransformerDecoder {
    /// Applies all layers to the target.
    ///
    /// # Shapes
    /// `[batch_size, target_length, d_model] -> [batch_size, target_length, d_model]`
    pub fn forward(&self, input: TransformerDecoderInput) -> Tensor<3> {
        let layers = self.layers.iter();
        layers.fold(input, |x, layer| layer.forward(x)).target
    }

    /// As [`forward`](Self::forward), for targets that grow by one position at their end from call to call, and a
    /// memory that stays: from the second call on, only the last position is computed.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerDecoderInput,
        cache: &mut TransformerDecoderAutoregressiveCache,
    ) -> Tensor<3> {
        let layers = self.layers.iter().zip(&mut cache.layers);
        let decoded = layers.fold(input, |x, (layer, cache)| {
            layer.forward_autoregressive_inference(x, cache)
        });
        decoded.target
    }

    /// An empty cache for [`forward_autoregressive_inference`](Self::forward_autoregressive_inference).
    pub fn new_autoregressive_cache(&self) -> TransformerDecoderAutoregressiveCache {
        let empty = |_| TransformerDecoderLayerAutoregressiveCache::empty();
        TransformerDecoderAutoregressiveCache {
            layers: self.layers.iter().map(empty).collect(),
        }
    }
}

/// What a [`TransformerDecoder`] computed of the positions that it has seen.
pub struct TransformerDecoderAutoregressiveCache {
    layers: Vec<TransformerDecoderLayerAutoregressiveCache>,
}

/// What a [`TransformerDecoderLayer`] computed of the positions that it has seen.
pub struct TransformerDecoderLayerAutoregressiveCache {
    /// Of its attention to the memory.
    pub cross_attn: MhaCache,
    /// Of its attention to the target.
    pub self_attn: MhaCache,
    /// Of its feed-forward sub-layer.
    pub pwff: TensorCache<3>,
    /// Of `norm_1`.
    pub norm_1: TensorCache<3>,
    /// Of `norm_2`.
    pub norm_2: TensorCache<3>,
    /// Of `norm_3`.
    pub norm_3: TensorCache<3>,
}

impl TransformerDecoderLayerAutoregressiveCache {
    /// A cache that has seen nothing.
    pub fn empty() -> Self {
        Self {
            cross_attn: MhaCache::autoregressive_cross_attention(),
            self_attn: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
            norm_3: TensorCache::empty(),
        }
    }
}

/// One transformer decoder layer.
///
/// Fields are in the order of the forward pass, in which [`sites`](crate::sites) lists their products; Burn's layer has
/// the same in another order, which records do not see.
#[derive(Module, Debug)]
pub struct TransformerDecoderLayer {
    /// Multi-head attention of the target to itself.
    pub self_attn: MultiHeadAttention,
    /// Multi-head attention of the target to the memory.
    pub cross_attn: MultiHeadAttention,
    /// Position-wise feed-forward sub-layer.
    pub pwff: PositionWiseFeedForward,
    /// Normalization around the attention to the memory.
    pub norm_1: LayerNorm,
    /// Normalization around the feed-forward sub-layer.
    pub norm_2: LayerNorm,
    /// Normalization around the attention to the target.
    pub norm_3: LayerNorm,
    /// Dropout of the residual connections.
    pub dropout: Dropout,
    /// Whether normalization comes before instead of after each sub-layer.
    pub norm_first: bool,
}

impl TransformerDecoderLayer {
    /// Keeps the parameters and their ids. Burn's layers do not tell the epsilon of their normalization.
    pub fn from_burn(
        layer: burn::nn::transformer::TransformerDecoderLayer,
        layer_norm_eps: f64,
    ) -> Self {
        Self {
            self_attn: layer.self_attn.into(),
            cross_attn: layer.cross_attn.into(),
            pwff: layer.pwff.into(),
            norm_1: LayerNorm::from_burn(layer.norm_1, layer_norm_eps),
            norm_2: LayerNorm::from_burn(layer.norm_2, layer_norm_eps),
            norm_3: LayerNorm::from_burn(layer.norm_3, layer_norm_eps),
            dropout: layer.dropout.into(),
            norm_first: layer.norm_first,
        }
    }

    /// Initializes one layer with the parameters that Burn's would get.
    pub fn new(config: &TransformerDecoderConfig, device: &Device) -> Self {
        let layer = burn::nn::transformer::TransformerDecoderLayer::new(&config.to_burn(), device);
        Self::from_burn(layer, config.layer_norm_eps)
    }

    /// Applies the layer to the target and returns it with the rest of the input.
    ///
    /// # Shapes
    /// `[batch_size, target_length, d_model] -> [batch_size, target_length, d_model]`
    pub fn forward(&self, input: TransformerDecoderInput) -> TransformerDecoderInput {
        self.apply(input, None)
    }

    /// As [`forward`](Self::forward), for targets that grow by one position at their end from call to call.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerDecoderInput,
        cache: &mut TransformerDecoderLayerAutoregressiveCache,
    ) -> TransformerDecoderInput {
        self.apply(input, Some(cache))
    }

    fn apply(
        &self,
        input: TransformerDecoderInput,
        mut cache: Option<&mut TransformerDecoderLayerAutoregressiveCache>,
    ) -> TransformerDecoderInput {
        macro_rules! cached {
            ($field:ident) => {
                cache.as_deref_mut().map(|cache| &mut cache.$field)
            };
        }
        let x = input.target;

        let attended = if self.norm_first {
            position_wise(cached!(norm_3), x.clone(), |x| self.norm_3.forward(x))
        } else {
            x.clone()
        };
        let (pad, pairs) = (
            input.target_mask_pad.clone(),
            input.target_mask_attn.clone(),
        );
        let attention = masked(MhaInput::self_attn(attended), pad, pairs);
        let attended = self.self_attn.context(attention, cached!(self_attn));
        let x = self.dropout.forward_add(attended, x);

        let query = position_wise(cached!(norm_1), x.clone(), |x| self.norm_1.forward(x));
        let x = if self.norm_first { x } else { query.clone() };
        let attention = MhaInput::new(query, input.memory.clone(), input.memory.clone());
        let (pad, pairs) = (
            input.memory_mask_pad.clone(),
            input.memory_mask_attn.clone(),
        );
        let attention = masked(attention, pad, pairs);
        let attended = self.cross_attn.context(attention, cached!(cross_attn));
        let x = self.dropout.forward_add(attended, x);

        let fed = position_wise(cached!(norm_2), x.clone(), |x| self.norm_2.forward(x));
        let x = if self.norm_first { x } else { fed.clone() };
        let fed = position_wise(cached!(pwff), fed, |x| self.pwff.forward(x));
        let x = self.dropout.forward_add(fed, x);
        let target = if self.norm_first {
            x
        } else {
            position_wise(cached!(norm_3), x, |x| self.norm_3.forward(x))
        };
        TransformerDecoderInput { target, ..input }
    }
}
