//! Rows as a byte an element and their scales, in memory of the caller's.

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};
use rayon::prelude::*;

use crate::encoded::encode_all;
use crate::factor::Factor;
use crate::gemm::Reading;
use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::Order;
use crate::scaled::Scaled;

/// Elements that one task decodes.
const TASK_ELEMENTS: usize = 1 << 15;

/// How many scales [`encode_rows`] writes for a matrix `[rows, depth]`: none where the numerics are unscaled.
pub fn scales_of_rows(numerics: &Numerics, [rows, depth]: [usize; 2]) -> usize {
    match numerics.granularity {
        Granularity::Unscaled => 0,
        granularity => granularity.layout(rows, depth).len(1),
    }
}

/// Quantizes a contiguous matrix `[rows, depth]` to the codes and scales that [`quantize`](crate::quantize()) gives its
/// rows: `channel` is a scale a row, blocks lie along the rows. What [`decode_rows`] makes of them is what
/// [`fake_quantize`](crate::fake_quantize) gives.
///
/// A NaN in a format without one makes the scales of its row NaN, so that nothing of the row is mistaken for a number.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_quant::{Numerics, decode_rows, encode_rows};
///
/// let numerics: Numerics = "int8/channel".parse()?;
/// let (mut codes, mut scales) = ([0; 4], [0.0; 2]);
/// encode_rows(&[1.0, -0.5, 200.0, 254.0], [2, 2], &numerics, RandomBits::NONE, &mut codes, &mut scales);
/// assert_eq!((codes, scales), ([127, -64_i8 as u8, 100, 127], [1.0 / 127.0, 2.0]));
///
/// let mut values = [0.0; 4];
/// decode_rows(&codes, [2, 2], &numerics, &scales, &mut values);
/// assert_eq!(values[2..], [200.0, 254.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If the format is wider than 8 bits, or a slice is not of the length that the shape and [`scales_of_rows`] say.
pub fn encode_rows(
    values: &[f32],
    shape: [usize; 2],
    numerics: &Numerics,
    random: RandomBits,
    codes: &mut [u8],
    scales: &mut [f32],
) {
    check(codes.len(), shape, numerics, scales.len());
    assert_eq!(values.len(), codes.len(), "a code for every value");
    let [outer, depth] = shape;
    let operand = Operand {
        data: values,
        offsets: &[0],
        outer,
        depth,
        outer_stride: depth,
        depth_stride: 1,
    };
    let factor = Factor::new(operand, *numerics, random);
    let scaled = Scaled::new(&factor);
    let mut side = scaled.side(Reading::Floats);
    side.order = Order::OuterMajor;
    encode_all(&side, codes);
    let poisoned = std::mem::take(&mut side.poisoned).into_inner();
    drop(side);
    if scales.is_empty() {
        return;
    }
    scales.copy_from_slice(scaled.scales());
    let layout = numerics.granularity.layout(outer, depth);
    for [matrix, row] in poisoned.unwrap_or_default() {
        for first in (0..depth).step_by(layout.depth_group) {
            scales[layout.index(matrix, row, first)] = f32::NAN;
        }
    }
}

/// The values of codes and scales that [`encode_rows`] wrote, each decoded and multiplied by its scale.
///
/// # Panics
/// As [`encode_rows`].
pub fn decode_rows(
    codes: &[u8],
    shape: [usize; 2],
    numerics: &Numerics,
    scales: &[f32],
    values: &mut [f32],
) {
    check(codes.len(), shape, numerics, scales.len());
    assert_eq!(values.len(), codes.len(), "a value for every code");
    if codes.is_empty() {
        return;
    }
    let rounder = Rounder::new(numerics.format, Rounding::Nearest, Overflow::Special);
    let [rows, depth] = shape;
    if scales.len() <= 1 {
        let scale = scales.first().copied().unwrap_or(1.0);
        return codes
            .par_chunks(TASK_ELEMENTS)
            .zip(values.par_chunks_mut(TASK_ELEMENTS))
            .for_each(|(codes, values)| rounder.decode_scaled_u8(codes, scale, values));
    }
    let layout = numerics.granularity.layout(rows, depth);
    let task = TASK_ELEMENTS.div_ceil(depth);
    let tasks = codes
        .par_chunks(task * depth)
        .zip(values.par_chunks_mut(task * depth));
    tasks.enumerate().for_each(|(index, (codes, values))| {
        let rows = codes.chunks(depth).zip(values.chunks_mut(depth));
        for (row, (codes, values)) in rows.enumerate() {
            let groups = codes
                .chunks(layout.depth_group)
                .zip(values.chunks_mut(layout.depth_group));
            let first = layout.index(0, index * task + row, 0);
            for ((codes, values), scale) in groups.zip(&scales[first..]) {
                rounder.decode_scaled_u8(codes, *scale, values);
            }
        }
    });
}

fn check(codes: usize, shape: [usize; 2], numerics: &Numerics, scales: usize) {
    let [rows, depth] = shape;
    assert!(
        numerics.format.bits() <= 8,
        "a code of {} is wider than a byte",
        numerics.format
    );
    assert_eq!(codes, rows * depth, "{rows} rows of {depth} codes");
    assert_eq!(
        scales,
        scales_of_rows(numerics, shape),
        "the scales of {rows} rows of {depth} as {numerics}"
    );
}
