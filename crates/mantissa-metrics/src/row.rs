//! Rows of an operand as slices.

use mantissa_quant::Operand;

/// The elements along the contraction at one outer index: a part of the operand's data where they
/// are neighbours there, else copied into `buffer`.
#[inline(always)]
pub(crate) fn row<'a>(
    operand: &Operand<'a>,
    matrix: usize,
    outer: usize,
    buffer: &'a mut Vec<f32>,
) -> &'a [f32] {
    if operand.depth == 0 {
        return &[];
    }
    let start = operand.offsets[matrix] + outer * operand.outer_stride;
    if operand.depth_stride == 1 {
        return &operand.data[start..start + operand.depth];
    }
    buffer.clear();
    buffer.extend((0..operand.depth).map(|k| operand.data[start + k * operand.depth_stride]));
    buffer
}
