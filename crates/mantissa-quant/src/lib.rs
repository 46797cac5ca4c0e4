//! Scales, quantized operands and products of quantized operands.
