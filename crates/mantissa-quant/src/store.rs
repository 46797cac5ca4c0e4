//! Codes and scales for storage.

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, encode};

use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::quantize::quantize;

/// A tensor as codes and scales.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The codes in the order of the elements, each right-aligned in `bytes_per_code` bytes,
    /// little-endian. A NaN that the format cannot hold is stored as the format's codec encodes it.
    pub codes: Vec<u8>,
    /// 1 up to 8 bits, 2 up to 16, else 4.
    pub bytes_per_code: usize,
    /// The scales, row-major `[groups of rows, groups of a row]`, or a single one for the whole
    /// tensor; empty when unscaled.
    pub scales: Vec<f32>,
    /// Scales along one row; 0 when a single one or none serves the whole tensor.
    pub scales_per_row: usize,
    /// Elements that were NaN or infinite.
    pub non_finite: u64,
}

/// Quantizes rows of `depth` elements, scales running along the rows: `channel` is a scale a row.
///
/// # Panics
/// If `data` is not whole rows.
pub fn quantize_rows(
    data: &[f32],
    depth: usize,
    numerics: &Numerics,
    random: RandomBits,
) -> StoredTensor {
    assert!(
        data.len().checked_rem(depth).unwrap_or(data.len()) == 0,
        "{} elements are not whole rows of {depth}",
        data.len()
    );
    let rows = Operand {
        data,
        offsets: &[0],
        outer: data.len().checked_div(depth).unwrap_or(0),
        depth,
        outer_stride: depth,
        depth_stride: 1,
    };
    let quantized = quantize(&rows, numerics, random);
    let (codes, bytes_per_code) = encode_all(numerics.format, &quantized.values);
    StoredTensor {
        codes,
        bytes_per_code,
        scales: match numerics.granularity {
            Granularity::Unscaled => Vec::new(),
            _ => quantized.scales,
        },
        scales_per_row: if quantized.layout.shared {
            0
        } else {
            quantized.layout.depth_groups
        },
        non_finite: quantized.non_finite,
    }
}

/// The codes of values that already lie on the grid.
fn encode_all(format: Format, values: &[f32]) -> (Vec<u8>, usize) {
    let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Special);
    match format.bits() {
        0..=8 => {
            let mut codes = vec![0; values.len()];
            rounder.encode_u8(RandomBits::NONE, 0, values, &mut codes);
            (codes, 1)
        }
        9..=16 => {
            let mut codes = vec![0u16; values.len()];
            rounder.encode_u16(RandomBits::NONE, 0, values, &mut codes);
            (
                codes.iter().flat_map(|code| code.to_le_bytes()).collect(),
                2,
            )
        }
        _ => {
            let code = |x: &f32| encode(format, *x, Rounding::Nearest, Overflow::Special, 0);
            (
                values.iter().flat_map(|x| code(x).to_le_bytes()).collect(),
                4,
            )
        }
    }
}
