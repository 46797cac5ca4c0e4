//! Counter-based random bits: the bits of an element are a pure function of (seed, stream, element index). Stochastic rounding
//! takes half a word for each element, for drawing a word takes as long as rounding by it.
//!
//! The generator is Philox4x32 with seven rounds (Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*,
//! SC 2011), the fewest rounds that pass BigCrush there.

use pulp::{Simd, WithSimd};

use crate::SimdLevel;

/// Multipliers of the two halves of the counter (Salmon et al. 2011, table 2 and Random123's `philox.h`).
pub(crate) const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key grows by each round: the golden ratio and the square root of three less one, as 32-bit fractions.
pub(crate) const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
pub(crate) const ROUNDS: usize = 7;

/// Counters drawn side by side, so that a vector unit of up to 512 bits needs no transposition.
pub(crate) const LANES: usize = 16;
/// Elements served by one counter of every lane, at four words each.
pub(crate) const BLOCK: usize = 4 * LANES;
/// Blocks drawn together, so that one's multiplications wait while the other's run.
pub(crate) const PAIR: usize = 2;
/// Elements that stochastic rounding serves with one word each.
const HALVES: u64 = 2;

/// A stream of random bits, 32 for each element index. Copying it is free and reading it changes nothing, so any thread may ask
/// for any element in any order.
///
/// ```
/// use mantissa_formats::RandomBits;
///
/// let random = RandomBits::new(7, 0);
/// let mut bits = [0; 100];
/// random.fill(40, &mut bits);
/// assert_eq!(bits[2], random.at(42));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RandomBits {
    seed: u64,
    stream: u64,
    /// The index in the stream of what is called index 0.
    first: u64,
}

impl RandomBits {
    /// For roundings that read no random bits.
    pub const NONE: Self = Self::new(0, 0);

    /// The stream numbered `stream` of the seed. Streams of one seed, and seeds, are independent of each other.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self {
            seed,
            stream,
            first: 0,
        }
    }

    /// The bits from element `first` on: what was index `first` is index 0. A part of a tensor draws with it what the whole
    /// would have drawn there.
    ///
    /// ```
    /// # use mantissa_formats::RandomBits;
    /// let random = RandomBits::new(7, 0);
    /// assert_eq!(random.skip(40).at(2), random.at(42));
    /// ```
    pub const fn skip(self, first: u64) -> Self {
        Self {
            first: self.first.wrapping_add(first),
            ..self
        }
    }

    /// Where the element at `index` lies in the stream.
    pub(crate) const fn place(&self, index: u64) -> u64 {
        self.first.wrapping_add(index)
    }

    /// The 32 random bits of the element at `index`.
    pub const fn at(&self, index: u64) -> u32 {
        self.word(self.place(index))
    }

    /// The word at a place in the stream.
    const fn word(&self, place: u64) -> u32 {
        let (block, within) = (place / BLOCK as u64, (place % BLOCK as u64) as usize);
        let (lane, word) = (within % LANES, within / LANES);
        philox(self.counter(block * LANES as u64 + lane as u64), self.key())[word]
    }

    /// What stochastic rounding adds to the part of the element at `index` that it drops, in units of 2^-32 of the gap: 16 random
    /// bits, and below them a one and zeros, the middle of what is not drawn. So a word serves two elements, and the mean of the
    /// roundings is within 2^-17 of the gap of the value.
    pub const fn amount_at(&self, index: u64) -> u32 {
        let place = self.place(index);
        let (part, within) = (place / BLOCK as u64, place % BLOCK as u64);
        let word = self.word(part / HALVES * BLOCK as u64 + within);
        amount(word, part % HALVES)
    }

    /// Writes the random bits of the elements from `start` on.
    pub fn fill(&self, start: u64, out: &mut [u32]) {
        SimdLevel::best().dispatch(Fill {
            random: *self,
            start: self.place(start),
            out,
        });
    }

    /// The [amounts](Self::amount_at) of a block of elements of the stream. To be inlined into code that is compiled for a vector
    /// unit.
    #[inline(always)]
    pub(crate) fn amounts(&self, block: u64) -> [u32; BLOCK] {
        let words = self.block(block / HALVES);
        match block % HALVES {
            0 => amounts::<0>(&words),
            _ => amounts::<1>(&words),
        }
    }

    /// The random bits of two blocks of the stream that follow each other. To be inlined into code that is compiled for a vector
    /// unit.
    #[inline(always)]
    pub(crate) fn two_blocks<S: Simd>(&self, simd: S, block: u64) -> [[u32; BLOCK]; PAIR] {
        #[cfg(target_arch = "x86_64")]
        if let Some(&v4) = (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V4>() {
            let first = |block: u64| self.counter(block.wrapping_mul(LANES as u64));
            let counters = [first(block), first(block.wrapping_add(1))];
            return crate::random_avx512::two_blocks(v4, counters, self.key());
        }
        let _ = simd;
        [self.block(block), self.block(block.wrapping_add(1))]
    }

    /// The random bits of one block of the stream. To be inlined into code that is compiled for a vector unit.
    #[inline(always)]
    pub(crate) fn block(&self, block: u64) -> [u32; BLOCK] {
        let key = self.key().map(u64::from);
        let [low, high, stream_low, stream_high] = self
            .counter(block.wrapping_mul(LANES as u64))
            .map(u64::from);
        let mut words = [[0; LANES / 2]; 4];
        #[expect(
            clippy::needless_range_loop,
            reason = "four arrays are indexed, each by a line of its own"
        )]
        for pair in 0..LANES / 2 {
            // A block's first counter is a multiple of the lanes, so nothing carries.
            let even = low | (2 * pair as u64);
            let even = philox_wide([even, high, stream_low, stream_high], key);
            let odd = low | (2 * pair as u64 + 1);
            let odd = philox_wide([odd, high, stream_low, stream_high], key);
            // Written out, for the compiler does not vectorise the pairs around a loop over the words.
            words[0][pair] = neighbours(even[0], odd[0]);
            words[1][pair] = neighbours(even[1], odd[1]);
            words[2][pair] = neighbours(even[2], odd[2]);
            words[3][pair] = neighbours(even[3], odd[3]);
        }
        pulp::bytemuck::cast(words)
    }

    const fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    const fn counter(&self, draw: u64) -> [u32; 4] {
        [
            draw as u32,
            (draw >> 32) as u32,
            self.stream as u32,
            (self.stream >> 32) as u32,
        ]
    }
}

/// The amount of the element that has this half of a word, the lower half first.
#[inline(always)]
const fn amount(word: u32, half: u64) -> u32 {
    let drawn = if half == 0 {
        word << 16
    } else {
        word & 0xffff_0000
    };
    drawn | 0x8000
}

/// The amounts of the block of elements that has this half of the words.
#[inline(always)]
pub(crate) fn amounts<const HALF: u64>(words: &[u32; BLOCK]) -> [u32; BLOCK] {
    let mut amounts = [0; BLOCK];
    for i in 0..BLOCK {
        amounts[i] = amount(words[i], HALF);
    }
    amounts
}

/// [`RandomBits::fill`] for any vector unit. (A closure would leave its loop out of line, compiled for none.)
struct Fill<'a> {
    random: RandomBits,
    start: u64,
    out: &'a mut [u32],
}

impl WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut at = 0;
        while at < self.out.len() {
            let index = self.start.wrapping_add(at as u64);
            let within = (index % BLOCK as u64) as usize;
            let block = index / BLOCK as u64;
            let rest = &mut self.out[at..];
            if within == 0
                && let Some(out) = rest.first_chunk_mut::<{ PAIR * BLOCK }>()
            {
                *out = pulp::bytemuck::cast(self.random.two_blocks(simd, block));
                at += PAIR * BLOCK;
            } else {
                let count = (BLOCK - within).min(rest.len());
                let bits = self.random.block(block);
                rest[..count].copy_from_slice(&bits[within..within + count]);
                at += count;
            }
        }
    }
}

#[inline(always)]
const fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < ROUNDS {
        let even = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let odd = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (odd >> 32) as u32 ^ counter[1] ^ key[0],
            odd as u32,
            (even >> 32) as u32 ^ counter[3] ^ key[1],
            even as u32,
        ];
        key = [
            key[0].wrapping_add(KEY_STEPS[0]),
            key[1].wrapping_add(KEY_STEPS[1]),
        ];
        round += 1;
    }
    counter
}

/// [`philox`] on words in the lower halves of registers, where vector units multiply; the upper halves hold anything.
#[inline(always)]
const fn philox_wide(mut counter: [u64; 4], mut key: [u64; 2]) -> [u64; 4] {
    const LOWER: u64 = u32::MAX as u64;
    let mut round = 0;
    while round < ROUNDS {
        let even = MULTIPLIERS[0] as u64 * (counter[0] & LOWER);
        let odd = MULTIPLIERS[1] as u64 * (counter[2] & LOWER);
        counter = [
            (odd >> 32) ^ counter[1] ^ key[0],
            odd,
            (even >> 32) ^ counter[3] ^ key[1],
            even,
        ];
        key = [
            key[0].wrapping_add(KEY_STEPS[0] as u64) & LOWER,
            key[1].wrapping_add(KEY_STEPS[1] as u64) & LOWER,
        ];
        round += 1;
    }
    counter
}

/// The lower halves of two registers as neighbouring words in memory.
#[inline(always)]
const fn neighbours(first: u64, second: u64) -> u64 {
    let pair = first & u32::MAX as u64 | second << 32;
    if cfg!(target_endian = "big") {
        pair.rotate_left(32)
    } else {
        pair
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's `kat_vectors`, the lines of `philox4x32 7`.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]
        );
        assert_eq!(
            philox([!0; 4], [!0; 2]),
            [0x5207_ddc2, 0x4516_5e59, 0x4d8e_e751, 0x8c52_f662]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0x4dfc_caba, 0x190a_87f0, 0xc473_62ba, 0xb6b5_242a]
        );
    }
    #[test]
    fn a_filled_slice_holds_what_each_index_would() {
        let random = RandomBits::new(0x0123_4567_89ab_cdef, 42);
        for start in [
            0,
            1,
            15,
            63,
            64,
            65,
            1000,
            (1 << 32) * 4 - 100,
            u64::MAX / 2,
        ] {
            for len in [0, 1, 15, 63, 64, 65, 200] {
                let mut bits = vec![0; len];
                random.fill(start, &mut bits);
                for (i, bits) in bits.iter().enumerate() {
                    assert_eq!(*bits, random.at(start + i as u64), "{start} {len} {i}");
                }
                let mut skipped = vec![0; len];
                random.skip(start).fill(0, &mut skipped);
                assert_eq!(skipped, bits, "{start} {len}");
            }
        }
    }

    #[test]
    fn a_block_of_amounts_holds_what_each_index_would() {
        let random = RandomBits::new(0x0123_4567_89ab_cdef, 42);
        for block in [0, 1, 2, 1001, u64::MAX / BLOCK as u64] {
            for (i, amount) in random.amounts(block).into_iter().enumerate() {
                let index = block * BLOCK as u64 + i as u64;
                assert_eq!(amount, random.amount_at(index), "{index}");
            }
        }
    }

    /// Neighbouring blocks share words, but no bits.
    #[test]
    fn amounts_are_spread_evenly_and_independent_of_each_other() {
        let random = RandomBits::new(5, 6);
        let amounts: Vec<u32> = (0..1 << 16).map(|i| random.amount_at(i)).collect();
        assert!(amounts.iter().all(|amount| amount & 0xffff == 0x8000));
        // Centred, with the variance of a uniform distribution; products of pairs average to nothing.
        let centred = |i: usize| f64::from(amounts[i % amounts.len()]) / 2f64.powi(32) - 0.5;
        let mean = |term: &dyn Fn(usize) -> f64| {
            (0..amounts.len()).map(term).sum::<f64>() / amounts.len() as f64
        };
        let error = 1.0 / (amounts.len() as f64).sqrt();
        assert!(mean(&centred).abs() < 4.0 * error * (1.0f64 / 12.0).sqrt());
        for distance in [1, 16, BLOCK, 2 * BLOCK] {
            let product = mean(&|i| centred(i) * centred(i + distance));
            assert!(product.abs() < 4.0 * error / 12.0, "{distance}: {product}");
        }
    }

    #[test]
    fn seeds_and_streams_differ() {
        let bits = |seed, stream| {
            let mut bits = [0; 64];
            RandomBits::new(seed, stream).fill(0, &mut bits);
            bits
        };
        assert_ne!(bits(0, 0), bits(1, 0));
        assert_ne!(bits(0, 0), bits(1 << 32, 0));
        assert_ne!(bits(0, 0), bits(0, 1));
        assert_ne!(bits(0, 0), bits(0, 1 << 32));
    }
}
