//! An f32 as a BF16 number and the 16 bits that it lacks.
//!
//! The high half is the nearest BF16 number, ties away from zero, and the low half the distance from it in units of the last
//! place, as a signed integer. To even, 65537 f32 numbers would have some BF16 numbers as their nearest, one more than 16
//! bits tell apart.

use rayon::prelude::*;

/// Elements that one task converts.
const TASK: usize = 1 << 15;

/// NaN without a payload: rounding one that has a payload could carry into the sign.
const NAN: u32 = 0x7fc0_0000;

/// Splits every value into the bits of its halves.
pub(super) fn split(values: &[f32], high: &mut [u16], low: &mut [u16]) {
    let halves = high.par_chunks_mut(TASK).zip(low.par_chunks_mut(TASK));
    let tasks = values.par_chunks(TASK).zip(halves);
    tasks.for_each(|(values, (high, low))| {
        for ((value, high), low) in values.iter().zip(high).zip(low) {
            let bits = if value.is_nan() { NAN } else { value.to_bits() };
            *high = (bits.wrapping_add(0x8000) >> 16) as u16;
            *low = bits as u16;
        }
    });
}

/// The values whose halves these are.
pub(super) fn join(high: &[u16], low: &[u16], values: &mut [f32]) {
    let halves = high.par_chunks(TASK).zip(low.par_chunks(TASK));
    let tasks = values.par_chunks_mut(TASK).zip(halves);
    tasks.for_each(|(values, (high, low))| {
        for ((value, high), low) in values.iter_mut().zip(high).zip(low) {
            let distance = i32::from(*low as i16) as u32;
            *value = f32::from_bits((u32::from(*high) << 16).wrapping_add(distance));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_number_again_and_the_high_one_its_nearest() {
        let mut bits: Vec<u32> = (0..1 << 20)
            .map(|i: u32| i.wrapping_mul(0x9e37_79b1))
            .collect();
        // Ties of odd and even BF16 numbers, and the ends of ranges.
        for high in [0, 1, 0x7f, 0x80, 0x3f80, 0x3f81, 0x7f7f] {
            bits.extend([0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| high << 16 | low));
        }
        bits.extend([f32::INFINITY, f32::NEG_INFINITY, -0.0].map(f32::to_bits));
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let (mut high, mut low) = (vec![0; values.len()], vec![0; values.len()]);
        split(&values, &mut high, &mut low);
        let mut joined = vec![0.0; values.len()];
        join(&high, &low, &mut joined);
        for ((value, joined), high) in values.iter().zip(joined).zip(high) {
            if value.is_nan() {
                assert!(joined.is_nan());
                continue;
            }
            assert_eq!(value.to_bits(), joined.to_bits());
            let nearest = f32::from_bits(u32::from(high) << 16);
            let truncated = f32::from_bits(value.to_bits() & 0xffff_0000);
            let next = f32::from_bits((value.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
            let distance = |x: f32| (f64::from(x) - f64::from(*value)).abs();
            if next.is_finite() {
                let nearer = if distance(next) <= distance(truncated) {
                    next
                } else {
                    truncated
                };
                assert_eq!(nearest.to_bits(), nearer.to_bits(), "{value:e}");
            }
        }
    }
}
