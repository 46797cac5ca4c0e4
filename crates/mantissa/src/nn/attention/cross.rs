use burn::config::Config;
use burn::module::Module;
use burn::nn::Initializer;
use burn::tensor::activation::{quiet_softmax, softmax};
use burn::tensor::{Bool, Device, Tensor, assert_shape};

use super::multi_head::matmul_at;
use crate::fused::{self, ScoreMask};
use crate::nn::cache::TensorCache;
use crate::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use crate::session;
use crate::sites::SiteKey;

/// Configuration of [`CrossAttention`], as [`burn::nn::attention::CrossAttentionConfig`].
#[derive(Config, Debug)]
pub struct CrossAttentionConfig {
    /// The size of the query's features.
    pub d_model: usize,
    /// The size of the context's features.
    pub d_context: usize,
    /// The number of heads of the query.
    pub n_heads: usize,
    /// The number of heads of key and value, which divides `n_heads`: as many query heads share one.
    pub n_heads_kv: usize,
    /// The size of one head.
    pub d_head: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// The value that masked attention scores take. Default: -1.0e4
    #[config(default = -1.0e4)]
    pub min_float: f64,
    /// Use "quiet softmax" instead of softmax. Default: false
    #[config(default = false)]
    pub quiet_softmax: bool,
}

impl CrossAttentionConfig {
    /// Initializes the module with the parameters that Burn's would get.
    ///
    /// # Panics
    /// If `n_heads_kv` does not divide `n_heads`.
    pub fn init(&self, device: &Device) -> CrossAttention {
        assert!(
            self.n_heads.is_multiple_of(self.n_heads_kv),
            "{} heads of the query cannot share {} of key and value evenly",
            self.n_heads,
            self.n_heads_kv
        );
        let linear = |d_input, d_output| {
            let initializer = Initializer::KaimingUniform {
                gain: 1.0 / (self.d_head as f64).sqrt(),
                fan_out_only: false,
            };
            LinearConfig::new(d_input, d_output)
                .with_initializer(initializer)
                .init(device)
        };
        let (d_query, d_key) = (self.n_heads * self.d_head, self.n_heads_kv * self.d_head);
        CrossAttention {
            query: linear(self.d_model, d_query),
            key: linear(self.d_context, d_key),
            value: linear(self.d_context, d_key),
            output: linear(d_query, self.d_model),
            dropout: DropoutConfig::new(self.dropout).init(),
            n_heads: self.n_heads,
            n_heads_kv: self.n_heads_kv,
            d_head: self.d_head,
            scale: (self.d_head as f64).sqrt().recip(),
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
        }
    }
}

/// Attention of a query over a context of another size, six sites: `query`, `key`, `value`, `scores`, `context` and `output`;
/// [`burn::nn::attention::CrossAttention`] whose products follow the current autocast.
///
/// Softmax, masking and dropout stay in full precision.
#[derive(Module, Debug)]
pub struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    dropout: Dropout,
    n_heads: usize,
    n_heads_kv: usize,
    d_head: usize,
    scale: f64,
    min_float: f64,
    quiet_softmax: bool,
}

/// The keys and values of a context that stays as it is, for inference.
pub struct CrossAttentionCache {
    key: TensorCache<4>,
    value: TensorCache<4>,
}

impl CrossAttentionCache {
    /// A cache that has seen nothing.
    pub fn new() -> Self {
        Self {
            key: TensorCache::empty(),
            value: TensorCache::empty(),
        }
    }
}

impl Default for CrossAttentionCache {
    fn default() -> Self {
        Self::new()
    }
}

impl CrossAttention {
    /// Applies attention; the keys for which `mask` is true are masked.
    ///
    /// # Shapes
    /// - query: `[batch_size, seq_length_1, d_model]`
    /// - context: `[batch_size, seq_length_2, d_context]`
    /// - mask: `[batch_size, seq_length_2]`
    /// - output: `[batch_size, seq_length_1, d_model]`
    ///
    /// # Panics
    /// If the shapes disagree with those above.
    pub fn forward(
        &self,
        query: Tensor<3>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let key = |context| self.split(context, &self.key, self.n_heads_kv);
        let value = |context| self.split(context, &self.value, self.n_heads_kv);
        assert_shape!(context, [query.dims()[0], _, _]);
        let query = self.split(query, &self.query, self.n_heads);
        self.attend(query, key(context.clone()), value(context), mask)
    }

    /// As [`forward`](Self::forward), with the keys and values of the context of the first call.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_cache(
        &self,
        query: Tensor<3>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
        cache: &mut CrossAttentionCache,
    ) -> Tensor<3> {
        let key = |context| self.split(context, &self.key, self.n_heads_kv);
        let value = |context| self.split(context, &self.value, self.n_heads_kv);
        assert_shape!(context, [query.dims()[0], _, _]);
        let query = self.split(query, &self.query, self.n_heads);
        let key = cache.key.keep(context.clone(), key);
        let value = cache.value.keep(context, value);
        self.attend(query, key, value, mask)
    }

    /// `[batch_size, seq_length, features] -> [batch_size, heads, seq_length, d_head]`
    fn split(&self, x: Tensor<3>, linear: &Linear, heads: usize) -> Tensor<4> {
        let [batch_size, seq_length, _] = x.dims();
        linear
            .forward(x)
            .reshape([batch_size, seq_length, heads, self.d_head])
            .swap_dims(1, 2)
    }

    fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        let [batch_size, _, seq_length, _] = query.dims();
        let id = self.query.weight.id;
        let (key, value) = (self.repeated(key), self.repeated(value));
        let scores = matmul_at(SiteKey::Scores(id), query, key.transpose());
        let weights = if session::is_fused() && !self.quiet_softmax {
            let mask = ScoreMask::new(&mask, &None, self.min_float as f32);
            fused::softmax(scores, self.scale as f32, mask)
        } else {
            self.burns_weights(scores, mask)
        };
        let weights = self.dropout.forward(weights);
        let context = matmul_at(SiteKey::Context(id), weights, value)
            .swap_dims(1, 2)
            .reshape([batch_size, seq_length, self.n_heads * self.d_head]);
        self.output.forward(context)
    }

    /// A head of keys or values for each head of the query.
    fn repeated(&self, heads: Tensor<4>) -> Tensor<4> {
        let times = self.n_heads / self.n_heads_kv;
        if times == 1 {
            return heads;
        }
        let [batch_size, n_heads, seq_length, d_head] = heads.dims();
        heads
            .reshape([batch_size, n_heads, 1, seq_length, d_head])
            .expand([batch_size, n_heads, times, seq_length, d_head])
            .reshape([batch_size, n_heads * times, seq_length, d_head])
    }

    fn burns_weights(&self, scores: Tensor<4>, mask: Option<Tensor<2, Bool>>) -> Tensor<4> {
        let mut scores = scores * self.scale;
        if let Some(mask) = mask {
            let [batch_size, seq_length] = mask.dims();
            let mask = mask.reshape([batch_size, 1, 1, seq_length]);
            scores = scores.mask_fill(mask, self.min_float);
        }
        if self.quiet_softmax {
            quiet_softmax(scores, 3)
        } else {
            softmax(scores, 3)
        }
    }
}
