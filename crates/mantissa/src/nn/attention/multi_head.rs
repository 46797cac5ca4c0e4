use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::attention::MhaOutput;
use burn::nn::{Initializer, activation::Gelu};
use burn::tensor::activation::{quiet_softmax, softmax};
use burn::tensor::{Bool, Device, Tensor, assert_shape};

use super::MhaCache;
use crate::fused::{self, ScoreMask};
use crate::nn::{Dropout, Linear};
use crate::product::site_product;
use crate::session::{self, SiteUse};
use crate::sites::SiteKey;

/// Configuration of [`MultiHeadAttention`], as [`burn::nn::attention::MultiHeadAttentionConfig`].
#[derive(Config, Debug)]
pub struct MultiHeadAttentionConfig {
    /// The size of each linear layer.
    pub d_model: usize,
    /// The number of heads.
    pub n_heads: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// The value that masked attention scores take. Default: -1.0e4
    #[config(default = -1.0e4)]
    pub min_float: f64,
    /// Use "quiet softmax" instead of softmax. Default: false
    #[config(default = false)]
    pub quiet_softmax: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// Whether the key layer has a bias. Default: true
    #[config(default = true)]
    pub key_bias: bool,
    /// Whether the value layer has a bias. Default: true
    #[config(default = true)]
    pub value_bias: bool,
    /// Whether the query layer has a bias. Default: true
    #[config(default = true)]
    pub query_bias: bool,
    /// Whether the output layer has a bias. Default: true
    #[config(default = true)]
    pub output_bias: bool,
}

impl MultiHeadAttentionConfig {
    /// Initializes the module with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> MultiHeadAttention {
        burn::nn::attention::MultiHeadAttentionConfig::new(self.d_model, self.n_heads)
            .with_dropout(self.dropout)
            .with_min_float(self.min_float)
            .with_quiet_softmax(self.quiet_softmax)
            .with_initializer(self.initializer.clone())
            .with_key_bias(self.key_bias)
            .with_value_bias(self.value_bias)
            .with_query_bias(self.query_bias)
            .with_output_bias(self.output_bias)
            .init(device)
            .into()
    }
}

/// Multi-head attention, six sites: `query`, `key`, `value`, `scores`, `context` and `output`.
///
/// Softmax, masking and dropout stay in full precision.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiHeadAttention {
    /// Transforms the input features into the query space.
    pub query: Linear,
    /// Transforms the input features into the key space.
    pub key: Linear,
    /// Transforms the input features into the value space.
    pub value: Linear,
    /// Transforms the context back to the model's space.
    pub output: Linear,
    /// Dropout of the attention weights.
    pub dropout: Dropout,
    /// Unused; Burn's module has it.
    pub activation: Gelu,
    /// The size of each linear layer.
    pub d_model: usize,
    /// The number of heads.
    pub n_heads: usize,
    /// The size of one head's key and query vectors.
    pub d_k: usize,
    /// The value that masked attention scores take.
    pub min_float: f64,
    /// Use "quiet softmax" instead of softmax.
    pub quiet_softmax: bool,
}

impl From<burn::nn::attention::MultiHeadAttention> for MultiHeadAttention {
    /// Keeps the parameters and their ids.
    fn from(mha: burn::nn::attention::MultiHeadAttention) -> Self {
        Self {
            query: mha.query.into(),
            key: mha.key.into(),
            value: mha.value.into(),
            output: mha.output.into(),
            dropout: mha.dropout.into(),
            activation: mha.activation,
            d_model: mha.d_model,
            n_heads: mha.n_heads,
            d_k: mha.d_k,
            min_float: mha.min_float,
            quiet_softmax: mha.quiet_softmax,
        }
    }
}

impl ModuleDisplay for MultiHeadAttention {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_model", &self.d_model)
            .add("n_heads", &self.n_heads)
            .add("d_k", &self.d_k)
            .add("dropout", &self.dropout.prob)
            .add("min_float", &self.min_float)
            .add("quiet_softmax", &self.quiet_softmax)
            .optional()
    }
}

/// Input of [`MultiHeadAttention`], as [`burn::nn::attention::MhaInput`].
#[derive(Debug, Clone)]
pub struct MhaInput {
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
}

impl MhaInput {
    /// Self-attention over `tensor`, `[batch_size, seq_length, d_model]`.
    pub fn self_attn(tensor: Tensor<3>) -> Self {
        Self::new(tensor.clone(), tensor.clone(), tensor)
    }

    /// Attention of `query`, `[batch_size, seq_length_1, d_model]`, over `key` and `value`,
    /// `[batch_size, seq_length_2, d_model]`.
    pub fn new(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Self {
        Self {
            query,
            key,
            value,
            mask_pad: None,
            mask_attn: None,
        }
    }

    /// Masks the keys for which `mask_pad`, `[batch_size, seq_length_2]`, is true.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Masks the pairs for which `mask_attn`, `[batch_size, seq_length_1, seq_length_2]`, is true.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }
}

impl MultiHeadAttention {
    /// Applies attention.
    ///
    /// # Shapes
    /// - query: `[batch_size, seq_length_1, d_model]`
    /// - key, value: `[batch_size, seq_length_2, d_model]`
    /// - context: `[batch_size, seq_length_1, d_model]`, weights: `[batch_size, n_heads, seq_length_1, seq_length_2]`
    ///
    /// # Panics
    /// If the shapes disagree with those above.
    pub fn forward(&self, input: MhaInput) -> MhaOutput {
        let heads = self.heads(&input, None);
        let (weights, context) = self.attend(heads, &input);
        MhaOutput {
            weights,
            context: self.output.forward(context),
        }
    }

    /// As [`forward`](Self::forward), computing only what `cache` does not hold: its queries, keys, values and outputs
    /// grow by the last position of the input from call to call.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_cache(&self, input: MhaInput, cache: &mut MhaCache) -> MhaOutput {
        let heads = self.heads(&input, Some(cache));
        let (weights, context) = self.attend(heads, &input);
        let context = cache.output.extend(context, |x| self.output.forward(x));
        MhaOutput { weights, context }
    }

    /// The context alone, for which no weights are stored where nothing has to see them.
    pub(in crate::nn) fn context(
        &self,
        input: MhaInput,
        cache: Option<&mut MhaCache>,
    ) -> Tensor<3> {
        if let Some(cache) = cache {
            return self.forward_cache(input, cache).context;
        }
        let heads = self.heads(&input, None);
        let id = self.query.weight.id;
        let plain = !self.quiet_softmax && !self.dropout.is_active(&heads.query);
        let keys = [SiteKey::Scores(id), SiteKey::Context(id)];
        let context = if plain && session::is_fused() && SiteUse::all_in_full_precision(keys) {
            let Heads { query, key, value } = heads;
            fused::attention(query, key, value, self.scale(), self.mask(&input))
        } else {
            self.attend(heads, &input).1
        };
        self.output.forward(context)
    }

    /// Attention weights and the heads' contexts side by side.
    fn attend(&self, heads: Heads, input: &MhaInput) -> (Tensor<4>, Tensor<3>) {
        let [batch_size, _, seq_length, _] = heads.query.dims();
        let id = self.query.weight.id;
        let scores = matmul_at(SiteKey::Scores(id), heads.query, heads.key.transpose());
        let weights = if session::is_fused() && !self.quiet_softmax {
            fused::softmax(scores, self.scale(), self.mask(input))
        } else {
            self.burns_weights(scores, input)
        };
        let weights = self.dropout.forward(weights);
        let context = matmul_at(SiteKey::Context(id), weights.clone(), heads.value)
            .swap_dims(1, 2)
            .reshape([batch_size, seq_length, self.d_model]);
        (weights, context)
    }

    fn heads(&self, input: &MhaInput, cache: Option<&mut MhaCache>) -> Heads {
        let [batch_size, seq_length_2, _] = input.key.dims();
        assert_shape!(input.query, [batch_size, _, self.d_model]);
        assert_shape!(input.key, [_, _, self.d_model]);
        assert_shape!(input.value, [batch_size, seq_length_2, self.d_model]);
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|linear| move |x: Tensor<3>| self.split(x, linear));
        let (q, k, v) = (input.query.clone(), input.key.clone(), input.value.clone());
        match cache {
            Some(cache) => Heads {
                query: cache.query.extend(q, query),
                key: cache.key.extend(k, key),
                value: cache.value.extend(v, value),
            },
            None => Heads {
                query: query(q),
                key: key(k),
                value: value(v),
            },
        }
    }

    /// `[batch_size, seq_length, d_model] -> [batch_size, n_heads, seq_length, d_k]`
    fn split(&self, x: Tensor<3>, linear: &Linear) -> Tensor<4> {
        let [batch_size, seq_length, _] = x.dims();
        linear
            .forward(x)
            .reshape([batch_size, seq_length, self.n_heads, self.d_k])
            .swap_dims(1, 2)
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.d_k as f32).sqrt()
    }

    fn mask(&self, input: &MhaInput) -> Option<ScoreMask> {
        ScoreMask::new(&input.mask_pad, &input.mask_attn, self.min_float as f32)
    }

    fn burns_weights(&self, scores: Tensor<4>, input: &MhaInput) -> Tensor<4> {
        let mut scores = scores.div_scalar((self.d_k as f32).sqrt());
        if let Some(mask) = &input.mask_pad {
            let [batch_size, seq_length] = mask.dims();
            let mask = mask.clone().reshape([batch_size, 1, 1, seq_length]);
            scores = scores.mask_fill(mask, self.min_float);
        }
        if let Some(mask) = &input.mask_attn {
            let [batch_size, seq_length_1, seq_length_2] = mask.dims();
            let mask = mask.clone();
            let mask = mask.reshape([batch_size, 1, seq_length_1, seq_length_2]);
            scores = scores.mask_fill(mask, self.min_float);
        }
        if self.quiet_softmax {
            quiet_softmax(scores, 3)
        } else {
            softmax(scores, 3)
        }
    }
}

/// Queries, keys and values, each `[batch_size, n_heads, seq_length, d_k]`.
struct Heads {
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
}

/// `lhs rhs` at a site of attention, Burn's own outside an autocast.
pub(super) fn matmul_at(key: SiteKey, lhs: Tensor<4>, rhs: Tensor<4>) -> Tensor<4> {
    match SiteUse::of_key(key) {
        Some(site) => site_product(site, lhs, rhs, None),
        None => lhs.matmul(rhs),
    }
}
