//! The definitions, written as plainly as they can be: one element at a time, with the scalar codec.
#![allow(dead_code)]

use mantissa_formats::{RandomBits, codec};
use mantissa_quant::{Granularity, Numerics, Operand};

/// A quantized operand: elements and their effective scales, row-major `[batch, outer, depth]`.
pub struct Reference {
    pub values: Vec<f32>,
    pub scales: Vec<f32>,
}

/// The group of an element, as any tuple that distinguishes groups.
fn group(granularity: Granularity, matrix: usize, outer: usize, depth: usize) -> [usize; 3] {
    match granularity {
        Granularity::Unscaled | Granularity::Tensor => [0, 0, 0],
        Granularity::Channel => [matrix, outer, 0],
        Granularity::Block(n) => [matrix, outer, depth / n as usize],
        Granularity::Tile(r, c) => [matrix, outer / r as usize, depth / c as usize],
    }
}

/// The largest magnitude, NaN if there is one.
fn raise(most: &mut f32, x: f32) {
    if x.is_nan() || x.abs() > *most {
        *most = x.abs();
    }
}

pub fn quantize(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Reference {
    let mut indices = Vec::new();
    for matrix in 0..operand.batch() {
        for outer in 0..operand.outer {
            indices.extend((0..operand.depth).map(|depth| [matrix, outer, depth]));
        }
    }
    let mut amax = std::collections::HashMap::new();
    let mut tensor = 0f32;
    for &[m, o, d] in &indices {
        let x = operand.at(m, o, d);
        raise(
            amax.entry(group(numerics.granularity, m, o, d))
                .or_insert(0f32),
            x,
        );
        raise(&mut tensor, x);
    }
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for (index, &[m, o, d]) in indices.iter().enumerate() {
        let x = operand.at(m, o, d);
        let scale = match numerics.granularity {
            Granularity::Unscaled => 1.0,
            granularity => {
                let amax = amax[&group(granularity, m, o, d)];
                numerics.scale.scale(numerics.format, amax, tensor).value
            }
        };
        let value = codec::round(
            numerics.format,
            x / scale,
            numerics.rounding,
            numerics.overflow,
            random.amount_at(index as u64),
        );
        values.push(if x.is_nan() { f32::NAN } else { value });
        scales.push(scale);
    }
    Reference { values, scales }
}

/// Equal bit for bit, any NaN being equal to any other.
pub fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(same, "{what}: element {i} is {a:e}, not {b:e}");
    }
}

/// Values spread over several orders of magnitude, with some zeros.
pub fn sample(len: usize, seed: u64) -> Vec<f32> {
    let random = RandomBits::new(seed, 99);
    let value = |i: u64| {
        let (sign_and_size, fraction) = (random.at(2 * i), random.at(2 * i + 1));
        let fraction = f64::from(fraction) / f64::from(u32::MAX) + 0.5;
        let size = (f64::from(sign_and_size >> 8 & 0xff) / 255.0 * 6.0 - 4.0).exp2();
        let sign = [0.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0][sign_and_size as usize % 8];
        (sign * fraction * size) as f32
    };
    (0..len as u64).map(value).collect()
}
