//! A BERT encoder that predicts masked tokens (Devlin et al. 2018, arXiv 1810.04805), in the small sizes of Turc et al.
//! 2019 (arXiv 1908.08962).

mod mixed;
mod plain;

use std::sync::Mutex;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use mixed::Bert;
pub use plain::Bert as PlainBert;

/// The sizes of a [`Bert`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Token ids, the special ones included.
    pub vocab_size: usize,
    /// Tokens in the longest sequence.
    pub seq_len: usize,
    /// Width of every token's vector.
    pub d_model: usize,
    /// Width inside the feed-forward network.
    pub d_ff: usize,
    /// Attention heads; they divide `d_model`.
    pub n_heads: usize,
    /// Encoder layers.
    pub n_layers: usize,
    /// Share of activations dropped in training. Dropout draws from the device's generator, so a run that is to resume
    /// bit for bit with dropout must seed the device at every step.
    pub dropout: f64,
    /// Normalize before each sub-layer, which trains without a long warm-up, and not after it, as the paper does.
    pub norm_first: bool,
}

/// Sizes that make no network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BertError {
    /// A size of zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Heads of different widths.
    #[error(
        "{n_heads} attention heads do not divide a model width of {d_model}; choose a width that is a multiple"
    )]
    Heads {
        /// Heads asked for.
        n_heads: usize,
        /// Width asked for.
        d_model: usize,
    },
    /// No share of activations.
    #[error("dropout is a share of at least 0 and below 1, not {0}")]
    Dropout(f64),
}

impl BertConfig {
    /// 2 layers of width 128 with 2 heads, sequences of 64: small enough to train in half a minute on two cores.
    pub fn bert_tiny(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            seq_len: 64,
            d_model: 128,
            d_ff: 512,
            n_heads: 2,
            n_layers: 2,
            dropout: 0.0,
            norm_first: true,
        }
    }

    /// 4 layers of width 256 with 4 heads, sequences of 128.
    pub fn bert_mini(vocab_size: usize) -> Self {
        Self {
            seq_len: 128,
            d_model: 256,
            d_ff: 1024,
            n_heads: 4,
            n_layers: 4,
            ..Self::bert_tiny(vocab_size)
        }
    }

    /// Refuses sizes that make no network.
    pub fn check(&self) -> Result<(), BertError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("seq_len", self.seq_len),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("n_heads", self.n_heads),
            ("n_layers", self.n_layers),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(BertError::Zero(name));
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(BertError::Heads {
                n_heads: self.n_heads,
                d_model: self.d_model,
            });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(BertError::Dropout(self.dropout));
        }
        Ok(())
    }

    /// A network of `mantissa::nn`; the same seed gives the same weights. Seeds the device's generator.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Bert, BertError> {
        self.check()?;
        Ok(seeded(seed, device, || Bert::new(self, device)))
    }

    /// The same network of `burn::nn`, with the same weights for the same seed: what mixed precision is compared with.
    pub fn init_plain(&self, seed: u64, device: &Device) -> Result<PlainBert, BertError> {
        self.check()?;
        Ok(seeded(seed, device, || PlainBert::new(self, device)))
    }
}

/// Makes a module and draws its weights from `seed`, in module order.
///
/// Burn draws a weight when it is first read, from a generator that all threads share: so all are read here, one module
/// at a time.
fn seeded<M: Module>(seed: u64, device: &Device, make: impl FnOnce() -> M) -> M {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    device.seed(seed);
    let module = make();
    module.visit(&mut Read);
    module
}

struct Read;

impl ModuleVisitor for Read {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}
