//! How many elements of a chunk have which exponent field.
//!
//! A counter in memory takes an increment a cycle at best, an element at a time. But the exponents of a chunk are few and close
//! together, and counters can be kept across words: an element is a word with one bit, that of its exponent's remainder by 32, and
//! bit `i` of all counters together is a word, too. Three such words are added by a few logical operations, for all 32 counters and
//! all lanes of a vector at once (Harley and Seal, as in Muła, Kurz and Lemire 2018, Computer Journal 61).

use mantissa_formats::prefetch_ahead;
use pulp::{Simd, WithSimd};

use crate::chunk::{CHUNK, Chunk, LANES};

/// Counters in a word.
const COUNTERS: u32 = u32::BITS;
/// Elements of a lane that are counted together.
const ROWS: usize = 16;
/// Bits of a lane's counters, and of those of a chunk.
const LANE_BITS: usize = (CHUNK / LANES).ilog2() as usize + 1;
const BITS: usize = CHUNK.ilog2() as usize + 1;

/// The number of elements with each exponent field.
pub fn count(chunk: &Chunk) -> [u32; 256] {
    let highest = chunk.amax >> 23;
    let lowest = chunk.least_less_one.wrapping_add(1) >> 23;
    if !chunk.is_finite() || highest.saturating_sub(lowest) >= COUNTERS {
        return one_by_one(chunk.values);
    }
    let mut by_remainder = chunk.level.dispatch(Count(chunk.values));
    let mut counts = [0; 256];
    // Subnormals and zeros share a field, but zeros have no part in the extremes.
    if lowest > 0 {
        by_remainder[0] -= chunk.zeros;
        counts[0] = chunk.zeros;
    }
    for field in lowest..=highest {
        counts[field as usize] = by_remainder[(field % COUNTERS) as usize];
    }
    counts
}

/// How many exponent fields have which remainder by 32.
struct Count<'a>(&'a [f32]);

impl WithSimd for Count<'_> {
    type Output = [u32; COUNTERS as usize];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut bits = [[0; LANES]; BITS];
        let (blocks, rest) = self.0.as_chunks::<{ ROWS * LANES }>();
        for (i, block) in blocks.iter().enumerate() {
            prefetch_ahead(blocks, i, 1);
            add_block(&mut bits, block);
        }
        let mut counts = sums(bits);
        for x in rest {
            counts[(x.to_bits() >> 23) as usize % COUNTERS as usize] += 1;
        }
        counts
    }
}

/// Bits of equal worth: the last bits of the sums, and what is carried to the next ones.
#[inline(always)]
fn add(a: u32, b: u32, c: u32) -> [u32; 2] {
    let differ = a ^ b;
    [differ ^ c, (differ & c) | (a & !differ)]
}

#[inline(always)]
fn add_block(bits: &mut [[u32; LANES]; BITS], block: &[f32; ROWS * LANES]) {
    for lane in 0..LANES {
        let one = |row: usize| 1u32 << ((block[row * LANES + lane].to_bits() >> 23) % COUNTERS);
        let [mut ones, mut twos, mut fours, mut eights] =
            [bits[0][lane], bits[1][lane], bits[2][lane], bits[3][lane]];
        let mut eight = [0; 2];
        for (half, carry) in eight.iter_mut().enumerate() {
            let mut four = [0; 2];
            for (quarter, carry) in four.iter_mut().enumerate() {
                let row = 8 * half + 4 * quarter;
                let (first, second);
                [ones, first] = add(ones, one(row), one(row + 1));
                [ones, second] = add(ones, one(row + 2), one(row + 3));
                [twos, *carry] = add(twos, first, second);
            }
            [fours, *carry] = add(fours, four[0], four[1]);
        }
        let mut carry;
        [eights, carry] = add(eights, eight[0], eight[1]);
        [bits[0][lane], bits[1][lane], bits[2][lane], bits[3][lane]] = [ones, twos, fours, eights];
        for bits in &mut bits[ROWS.ilog2() as usize..LANE_BITS] {
            let sum = bits[lane];
            bits[lane] = sum ^ carry;
            carry &= sum;
        }
    }
}

/// The counters of all lanes, added up and each in a word.
#[inline(always)]
fn sums(mut bits: [[u32; LANES]; BITS]) -> [u32; COUNTERS as usize] {
    fold::<8>(&mut bits);
    fold::<4>(&mut bits);
    fold::<2>(&mut bits);
    fold::<1>(&mut bits);
    let mut counts = [0; COUNTERS as usize];
    for (counter, count) in counts.iter_mut().enumerate() {
        for bits in bits.iter().rev() {
            *count = 2 * *count + (bits[0] >> counter & 1);
        }
    }
    counts
}

/// Adds the second `HALF` of the lanes to the first.
#[inline(always)]
fn fold<const HALF: usize>(bits: &mut [[u32; LANES]; BITS]) {
    for lane in 0..HALF {
        let mut carry = 0;
        for bits in &mut *bits {
            [bits[lane], carry] = add(bits[lane], bits[lane + HALF], carry);
        }
    }
}

fn one_by_one(values: &[f32]) -> [u32; 256] {
    // Neighbouring elements often share an exponent; four tables in turn keep an increment from waiting for the previous one of
    // the same counter.
    let field = |x: &f32| usize::from((x.to_bits() >> 23) as u8);
    let mut tables = [[0u32; 256]; 4];
    let (quads, rest) = values.as_chunks::<4>();
    for quad in quads {
        for (table, x) in tables.iter_mut().zip(quad) {
            table[field(x)] += 1;
        }
    }
    for x in rest {
        tables[0][field(x)] += 1;
    }
    let [mut counts, others @ ..] = tables;
    for table in others {
        for (count, more) in counts.iter_mut().zip(table) {
            *count += more;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use mantissa_formats::SimdLevel;

    use super::*;

    #[test]
    fn every_level_counts_each_element_once() {
        // Close together, far apart, with and without fields at the ends, and all there are.
        type Field = fn(u32) -> u32;
        let chunks: [(&str, Field); 9] = [
            ("close", |i| 120 + i % 13),
            ("close and zero", |i| [0, 120, 125][i as usize % 3]),
            ("low", |i| i % 3),
            ("far", |i| 1 + i * 7 % 254),
            ("all", |i| i),
            ("ends", |i| [0, 255, 100, 101][i as usize % 4]),
            ("one", |_| 1),
            ("as many as counters", |i| 100 + i * 7 % 32),
            ("one more", |i| 100 + i * 7 % 33),
        ];
        for (name, field) in chunks {
            for len in [0, 1, 63, 64, 65, 255, 256, 1000, CHUNK - 1, CHUNK] {
                let field = |i: usize| field(i as u32) & 0xff;
                let values: Vec<f32> = (0..len)
                    .map(|i| f32::from_bits(field(i) << 23 | (i as u32 & 1) << 31 | (i as u32 / 2)))
                    .collect();
                let mut expected = [0; 256];
                for i in 0..len {
                    expected[field(i) as usize] += 1;
                }
                for level in SimdLevel::available() {
                    let counts = count(&Chunk::read(level, &values));
                    assert_eq!(counts, expected, "{name} {len} on {level}");
                }
            }
        }
    }

    #[test]
    fn zeros_are_told_from_what_shares_their_counter() {
        // Fields 96 and 128 leave nothing when divided by 32.
        for others in [[96, 97], [127, 128], [100, 101]] {
            let values: Vec<f32> = (0..CHUNK as u32 - 7)
                .map(|i| match i % 5 {
                    0 => f32::from_bits((i % 2) << 31),
                    i => f32::from_bits(others[i as usize % 2] << 23),
                })
                .collect();
            let field = |x: &f32| (x.to_bits() >> 23 & 0xff) as usize;
            let mut expected = [0; 256];
            values.iter().for_each(|x| expected[field(x)] += 1);
            for level in SimdLevel::available() {
                assert_eq!(
                    count(&Chunk::read(level, &values)),
                    expected,
                    "{others:?} on {level}"
                );
            }
        }
    }
}
