//! What a source of masked sequences offers to training, whatever it reads or generates.

use std::ops::Range;

use crate::draws::Draws;

/// Token id of `[PAD]`; it never occurs in a batch, since every sequence is full.
pub const PAD_TOKEN: i32 = 0;
/// Token id of `[MASK]`, the token that stands where a token was hidden.
pub const MASK_TOKEN: i32 = 1;
/// How many token ids the special tokens take in a vocabulary that this crate makes.
pub const SPECIAL_TOKENS: usize = 2;

/// Share of a sequence that is hidden: 15 %, as in BERT (Devlin et al. 2018, arXiv 1810.04805, section 3.1).
const MASKED_SHARE: f64 = 0.15;

/// Sequences a batch and tokens a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences a batch.
    pub batch_size: usize,
    /// Tokens a sequence.
    pub seq_len: usize,
}

/// A [`BatchShape`] that cannot be trained on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchShapeError {
    /// A batch without sequences.
    #[error("a batch needs at least one sequence; set a batch size of 1 or more")]
    EmptyBatch,
    /// A sequence in which nothing would be left visible.
    #[error(
        "a sequence of {0} tokens is too short to hide one and show another; set a sequence length of 2 or more"
    )]
    ShortSequence(usize),
}

impl BatchShape {
    /// Refuses a shape in which nothing could be masked or nothing would be visible.
    pub fn check(&self) -> Result<(), BatchShapeError> {
        if self.batch_size == 0 {
            Err(BatchShapeError::EmptyBatch)
        } else if self.seq_len < 2 {
            Err(BatchShapeError::ShortSequence(self.seq_len))
        } else {
            Ok(())
        }
    }

    /// Masked tokens in each sequence: 15 % rounded, at least one. A fixed number keeps every tensor's shape constant.
    pub fn masked_per_sequence(&self) -> usize {
        ((self.seq_len as f64 * MASKED_SHARE).round() as usize).max(1)
    }

    /// The numbers of `rows` of batch `index`, counted from the first batch on, and their shape.
    ///
    /// # Panics
    /// If a batch has no such rows.
    pub(crate) fn part(&self, index: u64, rows: Range<usize>) -> (impl Iterator<Item = u64>, Self) {
        assert!(
            rows.end <= self.batch_size,
            "a batch of {} sequences has no rows {rows:?}",
            self.batch_size
        );
        let shape = Self {
            batch_size: rows.len(),
            ..*self
        };
        let first = index.wrapping_mul(self.batch_size as u64);
        let numbers = rows.map(move |row| first.wrapping_add(row as u64));
        (numbers, shape)
    }

    /// Tokens a batch.
    pub fn tokens(&self) -> usize {
        self.batch_size * self.seq_len
    }
}

/// A batch of sequences in which some tokens are hidden, and what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedBatch {
    /// Sequences and their length.
    pub shape: BatchShape,
    /// Token ids, row-major `[batch_size, seq_len]`; [`MASK_TOKEN`] (or the tokenizer's own) at the masked positions.
    pub tokens: Vec<i32>,
    /// Indices into `tokens` of the masked positions, ascending: `masked_per_sequence` from each sequence.
    pub positions: Vec<i32>,
    /// The hidden token at each of `positions`.
    pub targets: Vec<i32>,
}

impl MaskedBatch {
    /// An empty batch, to be filled sequence by sequence.
    pub(crate) fn with_capacity(shape: BatchShape) -> Self {
        let masked = shape.batch_size * shape.masked_per_sequence();
        Self {
            shape,
            tokens: Vec::with_capacity(shape.tokens()),
            positions: Vec::with_capacity(masked),
            targets: Vec::with_capacity(masked),
        }
    }

    /// Appends a sequence, hiding [`BatchShape::masked_per_sequence`] of its tokens, each set of positions as likely as
    /// any other. A hidden token is always replaced by `mask_token`: BERT's 10 % random and 10 % unchanged tokens prepare
    /// for fine-tuning on unmasked text, and would make the best reachable loss depend on guessing which is which.
    pub(crate) fn push_masked(
        &mut self,
        sequence: impl IntoIterator<Item = i32>,
        mask_token: i32,
        draws: &mut Draws,
    ) {
        let start = self.tokens.len();
        self.tokens.extend(sequence);
        let length = self.tokens.len() - start;
        // Selection sampling (Knuth, The Art of Computer Programming, vol. 2, algorithm 3.4.2 S): ascending, no repeats.
        let mut wanted = self.shape.masked_per_sequence();
        for offset in 0..length {
            if (draws.below((length - offset) as u64) as usize) < wanted {
                let index = start + offset;
                self.positions.push(index as i32);
                self.targets.push(self.tokens[index]);
                self.tokens[index] = mask_token;
                wanted -= 1;
            }
        }
    }
}

/// A source of masked sequences. Batches are a pure function of the source's seed and the step.
pub trait MaskedSource: Send + Sync {
    /// Number of token ids, the special ones included.
    fn vocab_size(&self) -> usize;

    /// Shape of every batch, those of the evaluation set included.
    fn shape(&self) -> BatchShape;

    /// The training batch of a step.
    fn batch(&self, step: u64) -> MaskedBatch {
        self.rows(step, 0..self.shape().batch_size)
    }

    /// Some sequences of the training batch of a step: those of one rank.
    ///
    /// # Panics
    /// If the batch has no such rows.
    fn rows(&self, step: u64, rows: Range<usize>) -> MaskedBatch;

    /// The fixed set that losses are compared on. Training never sees it.
    fn evaluation(&self) -> &[MaskedBatch];

    /// The best mean loss (nats a masked token) that any model can reach on [`evaluation`](Self::evaluation), where it is
    /// known.
    fn floor(&self) -> Option<f64>;

    /// The mean loss on [`evaluation`](Self::evaluation) of a model that knows how frequent each token is and ignores
    /// what is visible: where learning starts.
    fn unigram_loss(&self) -> f64;
}
