//! Rows as codes and scales, against quantization that keeps its values.

use mantissa_formats::RandomBits;
use mantissa_quant::{
    Numerics, Operand, decode_rows, encode_rows, fake_quantize, quantize, scales_of_rows,
};

fn values(rows: usize, depth: usize) -> Vec<f32> {
    let value =
        |i: usize| ((i * 7919 % 1013) as f32 - 500.0) * 1.01f32.powi((i % 97) as i32) * 1e-3;
    (0..rows * depth).map(value).collect()
}

/// Codes and scales of the rows.
fn encoded(values: &[f32], shape: [usize; 2], numerics: &Numerics) -> (Vec<u8>, Vec<f32>) {
    let mut codes = vec![0xaa; values.len()];
    let mut scales = vec![-1.0; scales_of_rows(numerics, shape)];
    let random = RandomBits::new(3, 4);
    encode_rows(values, shape, numerics, random, &mut codes, &mut scales);
    (codes, scales)
}

#[test]
fn codes_and_scales_say_what_quantization_computes() {
    for text in [
        "e4m3/tensor",
        "e4m3/tensor/stochastic",
        "int8/channel",
        "int8/channel/stochastic",
        "e5m2/block32/pow2",
        "mxfp8",
        "e4m3/tile8x16",
        "nvfp4",
        "e5m2/unscaled",
    ] {
        let numerics: Numerics = text.parse().unwrap();
        for shape in [[37, 70], [1, 5], [300, 1], [1000, 130], [0, 4]] {
            let values = values(shape[0], shape[1]);
            let operand = Operand::matrix(&values, shape[0], shape[1]).unwrap();
            let (codes, scales) = encoded(&values, shape, &numerics);
            if !scales.is_empty() {
                let random = RandomBits::new(3, 4);
                assert_eq!(
                    scales,
                    quantize(&operand, &numerics, random).scales,
                    "{text} {shape:?}"
                );
            }
            let mut decoded = vec![0.0; values.len()];
            decode_rows(&codes, shape, &numerics, &scales, &mut decoded);
            let expected = fake_quantize(&operand, &numerics, RandomBits::new(3, 4));
            assert_eq!(decoded, expected, "{text} {shape:?}");
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let numbers = |text: &str| -> Vec<bool> {
        let numerics: Numerics = text.parse().unwrap();
        let mut values = values(4, 6);
        values[13] = f32::NAN;
        let (codes, scales) = encoded(&values, [4, 6], &numerics);
        let mut decoded = vec![0.0; values.len()];
        decode_rows(&codes, [4, 6], &numerics, &scales, &mut decoded);
        decoded.iter().map(|x| x.is_finite()).collect()
    };
    // E4M3 has a NaN; int8 has none, and loses the row rather than the fault.
    for (text, lost) in [
        ("e4m3/channel", 13..14),
        ("int8/channel", 12..18),
        ("int8/tensor", 0..24),
    ] {
        let expected: Vec<bool> = (0..24).map(|i| !lost.contains(&i)).collect();
        assert_eq!(numbers(text), expected, "{text}");
    }
}
