//! How many elements of a chunk have which exponent field.
//!
//! A counter in memory takes an increment a cycle at best, an element at a time. But the exponents of a chunk are few and close
//! together, so it is faster to ask once for each of them how many bytes equal it, a vector of bytes at a time.

use pulp::{Simd, WithSimd};

use crate::chunk::{CHUNK, Chunk};

/// Bytes compared together.
const LANES: usize = 64;
const _: () = assert!(CHUNK / LANES <= u8::MAX as usize);
/// Exponents from which on increments in memory are faster.
const MANY: u32 = 48;

/// The number of elements with each exponent field.
pub fn count(chunk: &Chunk) -> [u32; 256] {
    chunk.level.dispatch(Count(chunk))
}

struct Count<'a>(&'a Chunk<'a>);

impl WithSimd for Count<'_> {
    type Output = [u32; 256];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [u32; 256] {
        let chunk = self.0;
        let mut fields = [0; CHUNK];
        let fields = &mut fields[..chunk.values.len()];
        for (field, x) in fields.iter_mut().zip(chunk.values) {
            *field = (x.to_bits() >> 23) as u8;
        }
        let fields = &*fields;
        let highest = chunk.amax >> 23;
        let lowest = chunk.least_less_one.wrapping_add(1) >> 23;
        if !chunk.is_finite() || highest.saturating_sub(lowest) >= MANY {
            return one_by_one(fields);
        }
        let mut counts = [0; 256];
        let mut rest = fields.len() as u32;
        // Subnormals and zeros share a field, but zeros have no part in the extremes.
        let zero = u32::from(chunk.zeros > 0 && lowest > 0);
        for field in (lowest..=highest).rev().chain((0..zero).rev()) {
            if rest == 0 {
                break;
            }
            let equal = equal_to(simd, fields, field as u8);
            counts[field as usize] = equal;
            rest -= equal;
        }
        debug_assert_eq!(rest, 0);
        counts
    }
}

/// How many bytes equal one.
#[inline(always)]
fn equal_to<S: Simd>(simd: S, bytes: &[u8], byte: u8) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<LANES>();
    let sum = equal_in_blocks(simd, blocks, byte);
    sum + rest.iter().filter(|&&other| other == byte).count() as u32
}

#[inline(always)]
fn equal_in_blocks<S: Simd>(simd: S, blocks: &[[u8; LANES]], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(v4) = (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V4>() {
        // A comparison is a bit for each byte here, and counting bits is one instruction.
        let byte = v4.avx512f._mm512_set1_epi8(byte as i8);
        let equal = |block: &[u8; LANES]| {
            let block = pulp::bytemuck::cast(*block);
            v4.avx512bw._mm512_cmpeq_epi8_mask(block, byte).count_ones()
        };
        let (quads, single) = blocks.as_chunks::<4>();
        let mut sums = [0; 4];
        for quad in quads {
            for (sum, block) in sums.iter_mut().zip(quad) {
                *sum += equal(block);
            }
        }
        return sums.iter().sum::<u32>() + single.iter().map(equal).sum::<u32>();
    }
    let _ = simd;
    let mut lanes = [0u8; LANES];
    for block in blocks {
        for (lane, other) in lanes.iter_mut().zip(block) {
            *lane += u8::from(*other == byte);
        }
    }
    lanes.iter().map(|&lane| u32::from(lane)).sum()
}

#[inline(always)]
fn one_by_one(fields: &[u8]) -> [u32; 256] {
    // Neighbouring elements often share an exponent; four tables in turn keep an increment from waiting for the previous one of
    // the same counter.
    let mut tables = [[0u32; 256]; 4];
    let (quads, rest) = fields.as_chunks::<4>();
    for quad in quads {
        for (table, &field) in tables.iter_mut().zip(quad) {
            table[usize::from(field)] += 1;
        }
    }
    for &field in rest {
        tables[0][usize::from(field)] += 1;
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
        let chunks: [(&str, Field); 7] = [
            ("close", |i| 120 + i % 13),
            ("close and zero", |i| [0, 120, 125][i as usize % 3]),
            ("low", |i| i % 3),
            ("far", |i| 1 + i * 7 % 254),
            ("all", |i| i),
            ("ends", |i| [0, 255, 100, 101][i as usize % 4]),
            ("one", |_| 1),
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
}
