//! A finite sequence of random draws that belongs to one key and one stream.

use mantissa_formats::RandomBits;

/// Draws numbered from zero; which numbers they are depends on the key and the stream alone.
pub(crate) struct Draws {
    bits: RandomBits,
    next: u64,
}

impl Draws {
    /// The draws of `stream` for a purpose, kept apart from those of every other purpose under the same seed.
    pub(crate) fn new(seed: u64, purpose: Purpose, stream: u64) -> Self {
        Self {
            bits: RandomBits::new(mix(seed ^ mix(purpose as u64)), stream),
            next: 0,
        }
    }

    fn bits(&mut self) -> u32 {
        let bits = self.bits.at(self.next);
        self.next += 1;
        bits
    }

    /// Uniform on `[0, 1)` in steps of 2^-32.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.bits()) * 2f64.powi(-32)
    }

    /// Uniform on `0..bound` up to a relative error of `bound / 2^64`: the high half of a 64-bit multiplication.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u64::from(self.bits()) << 32 | u64::from(self.bits());
        ((u128::from(wide) * u128::from(bound)) >> 64) as u64
    }

    /// An index drawn with the given probabilities, which sum to one.
    pub(crate) fn choice(&mut self, probabilities: &[f64]) -> usize {
        let mut left = self.unit();
        for (index, &probability) in probabilities.iter().enumerate() {
            if left < probability {
                return index;
            }
            left -= probability;
        }
        // Rounding can leave a remainder; the last outcome that is possible takes it.
        probabilities.iter().rposition(|&p| p > 0.0).unwrap_or(0)
    }
}

/// What draws are for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The tables of a hidden Markov source.
    Structure = 1,
    /// Training sequences.
    Training,
    /// Which tokens of a training sequence are hidden.
    TrainingMask,
    /// Evaluation sequences.
    Evaluation,
    /// Which tokens of an evaluation sequence are hidden.
    EvaluationMask,
}

/// Finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection that spreads nearby seeds over all 64 bits.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
