//! Reference models and data for mantissa: a BERT for masked-token prediction, a synthetic source whose best
//! reachable loss is known exactly, and a reader of text files.
//!
//! A [`MaskedSource`] gives [`MaskedBatch`]es as a pure function of its seed and the step, so resuming a run needs only
//! the step number; a [`Bert`] turns one into a loss.
//!
//! ```
//! use burn::tensor::Device;
//! use mantissa_zoo::{BatchShape, BertConfig, HiddenMarkovConfig, HiddenMarkovSource, MaskedSource};
//!
//! let shape = BatchShape { batch_size: 2, seq_len: 32 };
//! let source = HiddenMarkovSource::new(&HiddenMarkovConfig::default(), shape, 2, 7)?;
//! let config = BertConfig { seq_len: 32, ..BertConfig::bert_tiny(source.vocab_size()) };
//! let model = config.init(7, &Device::default().autodiff())?;
//! let loss = model.forward_loss(&source.batch(0));
//! loss.backward();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bert;
mod draws;
mod hidden_markov;
mod hidden_markov_source;
mod source;
mod text;
mod tokenizer;

pub use bert::{Bert, BertConfig, BertError, PlainBert};
pub use hidden_markov::{HiddenMarkov, HiddenMarkovError};
pub use hidden_markov_source::{HiddenMarkovConfig, HiddenMarkovSource};
pub use source::{
    BatchShape, BatchShapeError, MASK_TOKEN, MaskedBatch, MaskedSource, PAD_TOKEN, SPECIAL_TOKENS,
};
pub use text::{TextConfig, TextCorpus, TextError, Tokenization, Validation};
