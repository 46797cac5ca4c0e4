//! Codes and scales for storage.

use mantissa_formats::RandomBits;

use crate::numerics::Numerics;

/// A tensor as codes and scales.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The codes, little-endian, right-aligned in `bytes_per_code` bytes each, in the order of the
    /// elements.
    pub codes: Vec<u8>,
    /// 1, 2 or 4.
    pub bytes_per_code: usize,
    /// The scales, row-major `[rows, groups of a row]`, or a single one for the tensor.
    pub scales: Vec<f32>,
    /// Scales of one row; 0 when a single one serves the tensor.
    pub scales_per_row: usize,
    /// Elements that were NaN or infinite.
    pub non_finite: u64,
}

/// Quantizes rows of `depth` elements, scales running along the rows.
///
/// # Panics
/// If `data` is not whole rows.
pub fn quantize_rows(
    data: &[f32],
    depth: usize,
    numerics: &Numerics,
    random: RandomBits,
) -> StoredTensor {
    let _ = (data, depth, numerics, random);
    todo!()
}
