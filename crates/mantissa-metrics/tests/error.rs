//! Quantization errors against a reference written with the scalar codec, and the traps that other
//! tools fell into.

use mantissa_formats::{Format, Overflow, RandomBits, Rounding, codec};
use mantissa_metrics::{QuantizationError, cosine, quantization_error, sample};
use mantissa_quant::{Numerics, Operand};

fn error_of(values: &[f32], numerics: &str) -> QuantizationError {
    let operand = Operand::matrix(values, 1, values.len()).unwrap();
    quantization_error(&operand, &numerics.parse().unwrap(), RandomBits::NONE)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// One scale per row of a contiguous matrix, written out.
fn by_row(values: &[f32], depth: usize, format: Format) -> (Vec<f32>, u64) {
    let mut saturated = 0;
    let mut quantized = Vec::new();
    for row in values.chunks(depth) {
        let scale = row.iter().fold(0.0f32, |a, x| a.max(x.abs())) / format.max_finite();
        for x in row {
            let y = x / scale;
            saturated += u64::from(y.abs() >= format.overflow_threshold());
            quantized
                .push(codec::round(format, y, Rounding::Nearest, Overflow::Saturate, 0) * scale);
        }
    }
    (quantized, saturated)
}

#[test]
fn errors_equal_the_definitions() {
    let values = sample::student_t(3.0, RandomBits::new(1, 0), 64 * 48);
    for (format, name) in [
        (Format::INT8, "int8"),
        (Format::E4M3, "e4m3"),
        (Format::E5M2, "e5m2"),
        (Format::E2M1, "e2m1"),
    ] {
        let (quantized, saturated) = by_row(&values, 48, format);
        let operand = Operand::matrix(&values, 64, 48).unwrap();
        let numerics: Numerics = format!("{name}/channel").parse().unwrap();
        let error = quantization_error(&operand, &numerics, RandomBits::NONE);

        let pairs = || {
            values
                .iter()
                .zip(&quantized)
                .map(|(&x, &q)| (f64::from(x), f64::from(q)))
        };
        let n = values.len() as f64;
        let mse = pairs().map(|(x, q)| (q - x).powi(2)).sum::<f64>() / n;
        let signal = pairs().map(|(x, _)| x * x).sum::<f64>() / n;
        assert!(close(error.mse, mse), "{name}");
        assert!(close(error.signal, signal), "{name}");
        assert!(
            close(error.sqnr_db.unwrap(), 10.0 * (signal / mse).log10()),
            "{name}"
        );
        let bias = pairs().map(|(x, q)| q - x).sum::<f64>() / n;
        assert!((error.bias - bias).abs() < 1e-12, "{name}");
        assert!(
            close(error.relative_bias() * signal.sqrt(), error.bias),
            "{name}"
        );
        assert!(
            close(error.cosine.unwrap(), cosine(&values, &quantized).unwrap()),
            "{name}"
        );
        let underflow = pairs().filter(|&(x, q)| x != 0.0 && q == 0.0).count() as f64 / n;
        assert_eq!(error.underflow, underflow, "{name}");
        assert_eq!(error.saturation, saturated as f64 / n, "{name}");
        assert_eq!((error.count, error.non_finite), (values.len() as u64, 0));
        let magnitude = pairs().map(|(x, _)| x.abs()).sum::<f64>() / n;
        assert!(close(error.magnitude, magnitude), "{name}");
        assert_eq!(error.clipping, 0.0, "{name}");
    }
}

#[test]
fn strides_do_not_matter() {
    let values = sample::student_t(5.0, RandomBits::new(2, 0), 6 * 10);
    let transposed: Vec<f32> = (0..60).map(|i| values[i % 6 * 10 + i / 6]).collect();
    let plain = Operand::matrix(&values, 6, 10).unwrap();
    let swapped = Operand::matrix(&transposed, 10, 6).unwrap().transposed();
    for numerics in [
        "int8/channel",
        "e4m3/block3",
        "e5m2/tile2x4",
        "nvfp4",
        "bf16",
    ] {
        let numerics = numerics.parse().unwrap();
        assert_eq!(
            quantization_error(&plain, &numerics, RandomBits::NONE),
            quantization_error(&swapped, &numerics, RandomBits::NONE)
        );
    }
}

#[test]
fn saturation_begins_where_the_maximum_is_no_longer_nearest() {
    let next = |x: f32| f32::from_bits(x.to_bits() + 1);
    // E4M3's step at its maximum 448 is 32; the tie at 464 goes to the even 448. E5M2's step at
    // 57344 is 8192; the tie at 61440 goes away from the odd 57344.
    for (numerics, inside, outside) in [
        ("e4m3/unscaled/saturate", 464.0, next(464.0)),
        (
            "e5m2/unscaled/saturate",
            f32::from_bits(61440f32.to_bits() - 1),
            61440.0,
        ),
    ] {
        let of = |x: f32| error_of(&[x, -x, 1.0, 0.0], numerics).saturation;
        assert_eq!(of(inside), 0.0, "{numerics}");
        assert_eq!(of(outside), 0.5, "{numerics}");
    }
}

#[test]
fn dynamic_amax_scaling_never_saturates() {
    let values = sample::student_t(2.0, RandomBits::new(3, 0), 4096);
    for format in ["int8", "int4", "e4m3", "e5m2", "e2m1", "e3m2", "fp16"] {
        for granularity in ["tensor", "channel", "block32", "tile1x16"] {
            for scale in ["f32", "pow2"] {
                let numerics = format!("{format}/{granularity}/{scale}");
                assert_eq!(error_of(&values, &numerics).saturation, 0.0, "{numerics}");
            }
        }
    }
}

#[test]
fn a_floored_shared_exponent_saturates_and_is_counted() {
    // mxfp8: the block's amax 1.99 has exponent 0, so the scale is 2^-8 and 1.99 lies at 509, past
    // 464.
    let mut block = [1.0f32; 32];
    block[7] = -1.99;
    let error = error_of(&block, "mxfp8");
    assert_eq!(error.saturation, 1.0 / 32.0);
    assert!(error.bias > 0.0);
}

#[test]
fn exact_zeros_are_not_underflow() {
    let mut values = vec![0.0f32; 90];
    values.extend([1.0; 8]);
    values.extend([1e-4; 2]);
    let error = error_of(&values, "int8/tensor");
    assert_eq!(error.underflow, 0.02);
    assert_eq!(error_of(&[0.0; 100], "int8/tensor").underflow, 0.0);
}

#[test]
fn rounding_toward_zero_is_biased_toward_zero_and_stochastic_is_not() {
    let positive: Vec<f32> = sample::student_t(f64::INFINITY, RandomBits::new(4, 0), 100_000)
        .iter()
        .map(|x| x.abs())
        .collect();
    let negative: Vec<f32> = positive.iter().map(|x| -x).collect();
    let step = 1.0 / 127.0 * f64::from(positive.iter().fold(0.0f32, |a, &x| a.max(x)));
    // Truncation loses half a step on average.
    let down = error_of(&positive, "int8/tensor/toward-zero");
    assert!((down.bias + step / 2.0).abs() < 0.02 * step, "{down:?}");
    let up = error_of(&negative, "int8/tensor/toward-zero");
    assert!((up.bias - step / 2.0).abs() < 0.02 * step, "{up:?}");
    let operand = Operand::matrix(&positive, 1, positive.len()).unwrap();
    let stochastic = quantization_error(
        &operand,
        &"int8/tensor/stochastic".parse().unwrap(),
        RandomBits::new(1, 1),
    );
    // The error of one element has at most the standard deviation of half a step.
    let standard_error = step / 2.0 / (positive.len() as f64).sqrt();
    assert!(
        stochastic.bias.abs() < 4.0 * standard_error,
        "{stochastic:?}"
    );
}

#[test]
fn non_finite_originals_are_left_out_but_stay_in_the_denominator() {
    let error = error_of(&[f32::NAN, 1.0, f32::INFINITY, 1e-30], "e4m3/unscaled");
    assert_eq!((error.count, error.non_finite), (2, 2));
    assert_eq!(error.underflow, 0.25);
    assert!(error.mse.is_finite() && error.bias.is_finite());
}

#[test]
fn an_overflow_is_an_infinite_error() {
    let error = error_of(&[1.0, 2.0, 1e6, -3.0], "e5m2/unscaled");
    assert_eq!(error.mse, f64::INFINITY);
    assert_eq!((error.sqnr_db, error.cosine), (None, None));
    assert_eq!((error.saturation, error.bias), (0.25, 0.0));
    let json = serde_json::to_string(&error).unwrap();
    assert!(json.contains("\"mse\":null"), "{json}");
    assert_eq!(
        serde_json::from_str::<QuantizationError>(&json).unwrap(),
        error
    );
    let toml = toml::to_string(&error).unwrap();
    assert_eq!(toml::from_str::<QuantizationError>(&toml).unwrap(), error);
}

#[test]
fn what_is_undefined_is_none() {
    let exact = error_of(&[1.0, 2.0], "fp32");
    assert_eq!(
        (exact.mse, exact.sqnr_db, exact.cosine),
        (0.0, None, Some(1.0))
    );
    let zeros = error_of(&[0.0, 0.0], "e4m3/tensor");
    assert_eq!(
        (zeros.sqnr_db, zeros.cosine, zeros.relative_bias()),
        (None, None, 0.0)
    );
    let empty = error_of(&[], "e4m3/tensor");
    assert_eq!((empty.count, empty.mse, empty.underflow), (0, 0.0, 0.0));
    assert_eq!(cosine(&[1.0, f32::NAN], &[1.0, 1.0]), None);
}

#[test]
fn sqnr_of_a_uniform_input_is_six_decibels_a_bit() {
    // A uniform input over [-1, 1] in steps of 1/127: SQNR = 10 log10((1/3) / (step²/12)) = 20
    // log10(2·127).
    let values: Vec<f32> = (0..100_001)
        .map(|i| (i as f32 - 50_000.0) / 50_000.0)
        .collect();
    let expected = 20.0 * 254f64.log10();
    assert!((error_of(&values, "int8/tensor").sqnr_db.unwrap() - expected).abs() < 0.05);
    // Stochastic rounding has twice the variance, 3 dB less.
    let operand = Operand::matrix(&values, 1, values.len()).unwrap();
    let stochastic = quantization_error(
        &operand,
        &"int8/tensor/stochastic".parse().unwrap(),
        RandomBits::new(2, 2),
    );
    assert!((stochastic.sqnr_db.unwrap() - expected + 10.0 * 2f64.log10()).abs() < 0.05);
}
