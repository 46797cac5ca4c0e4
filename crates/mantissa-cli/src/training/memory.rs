//! What a run takes of memory: expected before it, measured while it goes.

use std::fmt;

use indicatif::BinaryBytes;
use mantissa::memory::ParameterMemory;
use mantissa_zoo::MaskedBatch;
use serde::Serialize;

use crate::ALLOCATOR;

/// What a run is expected to take.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectedMemory {
    /// Elements of all parameters.
    pub parameters: usize,
    /// Bytes a parameter, all copies together.
    pub bytes_per_parameter: f64,
    /// Bytes of each copy of the parameters.
    pub copies: Vec<Copy>,
    /// Bytes that the forward and the backward pass of a whole batch take, scratch memory included and gradients of parameters
    /// not.
    pub activations: usize,
    /// Sequences in that batch.
    pub sequences: usize,
}

/// One copy of the parameters.
#[derive(Clone, Debug, Serialize)]
pub struct Copy {
    /// What it is.
    pub name: String,
    /// Its bytes.
    pub bytes: usize,
}

impl ExpectedMemory {
    /// Of parameters, and of passes after which `activations(n)` bytes more are allocated than before any, for `n` sequences.
    /// Two parts of a batch are tried, and the whole extrapolated: it may not fit where one asks.
    pub fn new(
        memory: &ParameterMemory,
        sequences: usize,
        activations: impl Fn(usize) -> usize,
    ) -> Self {
        let copy = |name: &str, bytes| Copy {
            name: name.replace('_', " "),
            bytes,
        };
        let mut copies = vec![
            copy("weights", memory.weights),
            copy("gradients", memory.gradients),
        ];
        copies.extend(memory.states.iter().map(|(name, bytes)| copy(name, *bytes)));
        Self {
            parameters: memory.parameters,
            bytes_per_parameter: memory.bytes() as f64 / memory.parameters.max(1) as f64,
            copies,
            activations: extrapolated(sequences, activations),
            sequences,
        }
    }
}

fn extrapolated(sequences: usize, activations: impl Fn(usize) -> usize) -> usize {
    let less = sequences.div_ceil(4);
    let more = sequences.div_ceil(2).max(less + 1).min(sequences);
    // What threads keep for good is allocated by the first pass, and counts in all of them.
    activations(less);
    let first = activations(less);
    if less == more {
        return first;
    }
    let second = activations(more);
    let each = second.saturating_sub(first) / (more - less);
    second + each * (sequences - more)
}

impl fmt::Display for ExpectedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_parameter = |bytes: usize| bytes as f64 / self.parameters.max(1) as f64;
        let copies = self.copies.iter();
        let copies: Vec<String> = copies
            .map(|copy| format!("{} {:.2}", copy.name, per_parameter(copy.bytes)))
            .collect();
        let total: usize = self.copies.iter().map(|copy| copy.bytes).sum();
        write!(
            f,
            "{} parameters of {:.2} bytes ({}), {}; activations of {} sequences, about {}",
            self.parameters,
            self.bytes_per_parameter,
            copies.join(", "),
            BinaryBytes(total as u64),
            self.sequences,
            BinaryBytes(self.activations as u64)
        )
    }
}

/// Measures what is allocated from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    before: usize,
    peak: usize,
}

impl Gauge {
    /// From now on.
    pub fn start() -> Self {
        Self {
            before: ALLOCATOR.allocated(),
            peak: 0,
        }
    }

    /// Bytes more than at the start.
    pub fn now(&self) -> usize {
        ALLOCATOR.allocated().saturating_sub(self.before)
    }

    /// Takes notice of what is allocated now.
    pub fn sample(&mut self) {
        self.peak = self.peak.max(self.now());
    }

    /// The most that was noticed.
    pub fn peak(&self) -> usize {
        self.peak
    }
}

/// The first sequences of a batch.
pub fn first_sequences(batch: &MaskedBatch, count: usize) -> MaskedBatch {
    let tokens = count * batch.shape.seq_len;
    let masked = batch
        .positions
        .partition_point(|&at| (at as usize) < tokens);
    let mut first = batch.clone();
    first.shape.batch_size = count;
    first.tokens.truncate(tokens);
    first.positions.truncate(masked);
    first.targets.truncate(masked);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_batch_is_extrapolated_from_two_parts() {
        let linear = |sequences: usize| 1000 + 70 * sequences;
        for sequences in [1, 2, 3, 8, 33] {
            assert_eq!(
                extrapolated(sequences, linear),
                linear(sequences),
                "{sequences}"
            );
        }
    }
}
