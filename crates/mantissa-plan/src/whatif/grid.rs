//! The numerics tried where none are named.

use mantissa_formats::Rounding;
use mantissa_quant::Numerics;

use super::prediction::{FORMATS, GRANULARITIES};

/// Formats without a scale, and those whose scales are part of their definition.
const WHOLE: [&str; 5] = ["bf16", "fp16", "mxfp8", "mxint8", "nvfp4"];
const ROUNDINGS: [Rounding; 2] = [Rounding::Nearest, Rounding::Stochastic];

/// INT8, E4M3 and E5M2 with one scale for the tensor, for each channel, for blocks of 128 and of 32; BF16, FP16, MXFP8,
/// MXINT8 and NVFP4; each rounded to nearest and stochastically.
pub fn grid() -> Vec<Numerics> {
    let scaled = FORMATS
        .into_iter()
        .flat_map(|format| GRANULARITIES.map(|granularity| Numerics::scaled(format, granularity)));
    let whole = WHOLE
        .iter()
        .map(|token| token.parse().expect("a numerics of the grammar"));
    scaled
        .chain(whole)
        .flat_map(|numerics: Numerics| {
            ROUNDINGS.map(|rounding| Numerics {
                rounding,
                ..numerics
            })
        })
        .collect()
}
