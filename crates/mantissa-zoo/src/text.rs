//! Masked sequences from a person's text file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::draws::{Draws, Purpose};
use crate::source::{BatchShape, BatchShapeError, MaskedBatch, MaskedSource};
use crate::tokenizer::{BYTES_VOCABULARY, TextTokenizer};

/// What to read, and how to cut it into masked sequences.
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// A UTF-8 text file.
    pub path: PathBuf,
    /// Where the evaluation set comes from.
    pub validation: Validation,
    /// What a token is.
    pub tokenization: Tokenization,
    /// Shape of every batch.
    pub shape: BatchShape,
    /// Batches in the evaluation set.
    pub evaluation_batches: usize,
    /// Chooses the training sequences and what is hidden in them. The evaluation set does not depend on it.
    pub seed: u64,
}

impl TextConfig {
    /// The defaults for a file: 1024 byte-pair tokens, the last tenth for validation, 8 evaluation batches, seed 0.
    pub fn new(path: impl Into<PathBuf>, shape: BatchShape) -> Self {
        Self {
            path: path.into(),
            validation: Validation::LastTenth,
            tokenization: Tokenization::BytePair { vocab_size: 1024 },
            shape,
            evaluation_batches: 8,
            seed: 0,
        }
    }
}

/// Where the evaluation set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validation {
    /// The last tenth of the text, which training then never sees.
    LastTenth,
    /// A text file of its own.
    File(PathBuf),
}

/// What a token is. Whatever the choice, `[PAD]` and `[MASK]` are tokens too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokenization {
    /// One byte: 258 token ids.
    Bytes,
    /// A byte sequence learnt from the training part (byte-level byte-pair encoding).
    BytePair {
        /// Token ids at most; a short text gives fewer.
        vocab_size: usize,
    },
    /// As a `tokenizer.json` says, such as the one that [`TextCorpus::save_tokenizer`] writes.
    Saved(PathBuf),
}

/// Why a text cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error("{} is empty; give a file with text in it", .0.display())]
    Empty(PathBuf),
    /// Bytes that are no UTF-8.
    #[error("{} is not UTF-8 text: the byte at offset {offset} is invalid; convert it to UTF-8 first", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// Too little text for the shape of a batch.
    #[error(
        "the {part} part of {} has {tokens} tokens where {needed} are needed; give more text, a smaller batch or shorter sequences",
        path.display()
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// `training` or `validation`.
        part: &'static str,
        /// Tokens found.
        tokens: usize,
        /// Tokens needed: a batch for training, a sequence for validation.
        needed: usize,
    },
    /// A vocabulary that could not write every byte.
    #[error(
        "a vocabulary of {vocab_size} tokens is too small: it takes {least} to write every byte; ask for at least that many"
    )]
    VocabularyTooSmall {
        /// Tokens asked for.
        vocab_size: usize,
        /// Tokens needed.
        least: usize,
    },
    /// A `tokenizer.json` that is none, or lacks what masking needs.
    #[error("{} is no usable tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer library gave up on the text.
    #[error("cannot learn a tokenizer from the text: {0}")]
    TokenizerTraining(String),
    /// A text that the tokenizer does not encode.
    #[error("cannot encode {}: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the tokenizer says.
        reason: String,
    },
    /// A shape that no text could fill.
    #[error(transparent)]
    Shape(#[from] BatchShapeError),
}

/// A text as tokens, and the masked sequences drawn from it.
///
/// Training sequences begin at places drawn uniformly from the training part; the evaluation set is spread evenly over the
/// validation part. A hidden token is always replaced by `[MASK]`.
#[derive(Clone, Debug)]
pub struct TextCorpus {
    tokenizer: TextTokenizer,
    training: Vec<i32>,
    shape: BatchShape,
    seed: u64,
    evaluation: Vec<MaskedBatch>,
    unigram_loss: f64,
}

impl TextCorpus {
    /// Reads the text, makes or reads the tokenizer, and encodes.
    pub fn open(config: &TextConfig) -> Result<Self, TextError> {
        let shape = config.shape;
        shape.check()?;
        let text = read_text(&config.path)?;
        let (training, validation, validation_path) = match &config.validation {
            Validation::LastTenth => {
                let (training, validation) = split_last_tenth(&text);
                (training, validation.to_owned(), &config.path)
            }
            Validation::File(path) => (text.as_str(), read_text(path)?, path),
        };
        let tokenizer = match &config.tokenization {
            Tokenization::Bytes => TextTokenizer::train("", BYTES_VOCABULARY)?,
            Tokenization::BytePair { vocab_size } => TextTokenizer::train(training, *vocab_size)?,
            Tokenization::Saved(path) => TextTokenizer::load(path)?,
        };
        let encode = |part, path: &Path, text: &str, needed| {
            let tokens = tokenizer.encode(text).map_err(|reason| TextError::Encode {
                path: path.into(),
                reason,
            })?;
            if tokens.len() < needed {
                return Err(TextError::TooShort {
                    path: path.into(),
                    part,
                    tokens: tokens.len(),
                    needed,
                });
            }
            Ok(tokens)
        };
        let training = encode("training", &config.path, training, shape.tokens())?;
        let validation = encode("validation", validation_path, &validation, shape.seq_len)?;
        let evaluation = evaluation_set(
            &validation,
            shape,
            config.evaluation_batches,
            tokenizer.mask_token,
        );
        let unigram_loss = unigram_loss(&training, &evaluation, tokenizer.vocab_size);
        Ok(Self {
            tokenizer,
            training,
            shape,
            seed: config.seed,
            evaluation,
            unigram_loss,
        })
    }

    /// Tokens in the training part.
    pub fn training_tokens(&self) -> usize {
        self.training.len()
    }

    /// Writes the tokenizer as `tokenizer.json`, whole or not at all. With it ([`Tokenization::Saved`]), the same text and
    /// the same seed, a resumed run sees the same batches.
    pub fn save_tokenizer(&self, path: &Path) -> Result<(), TextError> {
        self.tokenizer.save(path)
    }

    /// The text of token ids, for showing what a model predicts.
    pub fn decode(&self, tokens: &[i32]) -> String {
        self.tokenizer.decode(tokens)
    }
}

impl MaskedSource for TextCorpus {
    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size
    }

    fn shape(&self) -> BatchShape {
        self.shape
    }

    fn rows(&self, step: u64, rows: Range<usize>) -> MaskedBatch {
        let (numbers, shape) = self.shape.part(step, rows);
        let mut batch = MaskedBatch::with_capacity(shape);
        let places = (self.training.len() - self.shape.seq_len + 1) as u64;
        for number in numbers {
            let start = Draws::new(self.seed, Purpose::Training, number).below(places) as usize;
            let window = self.training[start..][..self.shape.seq_len].iter().copied();
            let mut mask = Draws::new(self.seed, Purpose::TrainingMask, number);
            batch.push_masked(window, self.tokenizer.mask_token, &mut mask);
        }
        batch
    }

    fn evaluation(&self) -> &[MaskedBatch] {
        &self.evaluation
    }

    /// Nobody knows the best reachable loss on a person's text.
    fn floor(&self) -> Option<f64> {
        None
    }

    fn unigram_loss(&self) -> f64 {
        self.unigram_loss
    }
}

/// The text of a file, refused where there is none.
fn read_text(path: &Path) -> Result<String, TextError> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Read {
        path: path.into(),
        source,
    })?;
    if bytes.is_empty() {
        return Err(TextError::Empty(path.into()));
    }
    String::from_utf8(bytes).map_err(|error| TextError::NotUtf8 {
        path: path.into(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// Everything before the last tenth of the bytes, and the rest, cut between characters.
fn split_last_tenth(text: &str) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len() - text.len() / 10))
}

/// Batches of windows spread evenly over the validation part, first to last.
fn evaluation_set(
    tokens: &[i32],
    shape: BatchShape,
    batches: usize,
    mask_token: i32,
) -> Vec<MaskedBatch> {
    let windows = shape.batch_size * batches;
    let room = tokens.len() - shape.seq_len;
    let mut windows = (0..windows).map(|index| {
        let start = (room as u128 * index as u128 / (windows.max(2) - 1) as u128) as usize;
        (index as u64, &tokens[start..][..shape.seq_len])
    });
    let batch = |_| {
        let mut batch = MaskedBatch::with_capacity(shape);
        for (index, window) in windows.by_ref().take(shape.batch_size) {
            let mut mask = Draws::new(0, Purpose::EvaluationMask, index);
            batch.push_masked(window.iter().copied(), mask_token, &mut mask);
        }
        batch
    };
    (0..batches).map(batch).collect()
}

/// Loss of the training part's token frequencies on the evaluation set. Each count begins at one, so that a token that
/// training never shows costs much and not infinitely much (Laplace's rule of succession).
fn unigram_loss(training: &[i32], evaluation: &[MaskedBatch], vocab_size: usize) -> f64 {
    let mut counts = vec![1u64; vocab_size];
    training
        .iter()
        .for_each(|&token| counts[token as usize] += 1);
    let total = (training.len() + vocab_size) as f64;
    let targets = || evaluation.iter().flat_map(|batch| &batch.targets);
    let sum: f64 = targets()
        .map(|&token| -(counts[token as usize] as f64 / total).ln())
        .sum();
    sum / targets().count().max(1) as f64
}
