//! Quantized operands equal the definition bit for bit, whatever their strides.

mod reference;

use mantissa_formats::{Format, RandomBits, Rounding};
use mantissa_quant::{
    Numerics, Operand, amax, fake_quantize, fake_quantize_in_place, fake_quantize_into, quantize,
    quantize_rows,
};
use reference::{assert_same, sample};

const RANDOM: RandomBits = RandomBits::new(5, 11);

const NUMERICS: [&str; 26] = [
    "fp32",
    "fp32/channel",
    "bf16",
    "bf16/tensor",
    "fp16",
    "e5m2/unscaled",
    "e5m2/unscaled/stochastic",
    "int8/unscaled",
    "int8",
    "int8/channel",
    "int8/block32",
    "int8/block7",
    "int8/tile3x5",
    "int8/tile128x128",
    "int4/channel/pow2",
    "e4m3",
    "e4m3/channel/stochastic",
    "e4m3/block16/stochastic",
    "e4m3/tile4x16/stochastic",
    "e5m2/toward-zero",
    "e3m4/channel/nearest-away",
    "mxfp8",
    "mxint8/stochastic",
    "mxfp6",
    "mxfp4",
    "nvfp4",
];

/// Calls `check` with operands of many shapes and strides over the same data.
fn operands(check: impl Fn(&Operand, &str)) {
    let data = sample(50_000, 3);
    for [outer, depth] in [
        [1, 1],
        [1, 70],
        [70, 1],
        [5, 33],
        [33, 64],
        [17, 130],
        [100, 150],
    ] {
        let size = outer * depth;
        for (name, offsets, strides) in [
            ("contiguous", vec![0], [depth, 1]),
            ("transposed", vec![3], [1, outer]),
            ("batch", vec![2 * size, 0], [depth, 1]),
            ("transposed batch", vec![0, size], [1, outer]),
            ("padded rows", vec![1, 9], [depth + 3, 1]),
            ("padded columns", vec![7], [1, outer + 5]),
            ("interleaved", vec![0, 1], [2 * depth, 2]),
            ("repeated row", vec![5], [0, 1]),
            ("repeated column", vec![5], [1, 0]),
            ("repeated element", vec![5], [0, 0]),
        ] {
            let operand = Operand::new(&data, &offsets, [outer, depth], strides).unwrap();
            check(&operand, &format!("{name} {outer}x{depth}"));
        }
    }
    let large = sample(300 * 257, 4);
    let large = Operand::matrix(&large, 300, 257).unwrap();
    check(&large, "large");
    check(&large.transposed(), "large transposed");
}

#[test]
fn every_layout_equals_the_definition() {
    operands(|operand, name| {
        for text in NUMERICS {
            let numerics: Numerics = text.parse().unwrap();
            let what = format!("{text} of {name}");
            let expected = reference::quantize(operand, &numerics, RANDOM);
            let found = quantize(operand, &numerics, RANDOM);
            assert_same(&found.values, &expected.values, &what);
            let scales = (0..operand.count()).map(|i| {
                let (row, d) = (i / operand.depth, i % operand.depth);
                found.scale(row / operand.outer, row % operand.outer, d)
            });
            assert_same(&scales.collect::<Vec<_>>(), &expected.scales, &what);
            let products: Vec<f32> = expected
                .values
                .iter()
                .zip(&expected.scales)
                .map(|(x, scale)| x * scale)
                .collect();
            assert_same(&found.dequantize(), &products, &what);
            assert_same(&fake_quantize(operand, &numerics, RANDOM), &products, &what);
            assert_eq!(found.non_finite, 0, "{what}");
            // Whatever the caller's memory held before.
            let mut out = vec![f32::NAN; operand.count()];
            let report = fake_quantize_into(operand, &numerics, RANDOM, &mut out);
            assert_same(&out, &products, &what);
            assert_eq!(report.degenerate_groups, found.degenerate_groups, "{what}");
        }
    });
}

#[test]
fn in_place_is_the_same_as_elsewhere() {
    for [outer, depth] in [[1, 1], [1, 70], [70, 1], [33, 64], [100, 150], [300, 257]] {
        let data = sample(outer * depth, 12);
        let operand = Operand::matrix(&data, outer, depth).unwrap();
        for text in NUMERICS {
            let numerics = text.parse().unwrap();
            let what = format!("{text} of {outer}x{depth}");
            let mut out = vec![0.0; data.len()];
            let report = fake_quantize_into(&operand, &numerics, RANDOM, &mut out);
            let mut values = data.clone();
            let same = fake_quantize_in_place(&mut values, [outer, depth], &numerics, RANDOM);
            assert_same(&values, &out, &what);
            assert_eq!(same, report, "{what}");
        }
    }
}

#[test]
fn what_is_not_finite_is_found_in_place_too() {
    for text in NUMERICS {
        let numerics = text.parse().unwrap();
        let mut data = sample(60 * 70, 5);
        for (i, x) in [(3, f32::NAN), (2000, f32::INFINITY), (4199, -f32::NAN)] {
            data[i] = x;
        }
        let operand = Operand::matrix(&data, 60, 70).unwrap();
        let mut out = vec![0.0; data.len()];
        let report = fake_quantize_into(&operand, &numerics, RANDOM, &mut out);
        assert_eq!(report.non_finite, 3, "{text}");
        assert!(out[3].is_nan() && out[4199].is_nan(), "{text}");
        let mut values = data.clone();
        let same = fake_quantize_in_place(&mut values, [60, 70], &numerics, RANDOM);
        assert_same(&values, &out, text);
        assert_eq!(same, report, "{text}");
    }
}

#[test]
fn amax_is_the_largest_magnitude_or_nan() {
    operands(|operand, name| {
        let mut most = 0f32;
        for matrix in 0..operand.batch() {
            for outer in 0..operand.outer {
                for depth in 0..operand.depth {
                    most = most.max(operand.at(matrix, outer, depth).abs());
                }
            }
        }
        assert_eq!(amax(operand), most, "{name}");
    });
    let mut data = vec![0.5; 100_000];
    data[77_777] = f32::NEG_INFINITY;
    assert_eq!(
        amax(&Operand::matrix(&data, 100, 1000).unwrap()),
        f32::INFINITY
    );
    data[5] = -f32::NAN;
    assert!(amax(&Operand::matrix(&data, 100, 1000).unwrap()).is_nan());
    assert_eq!(amax(&Operand::matrix(&data, 0, 7).unwrap()), 0.0);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let data = sample(301 * 257, 8);
    let rows = Operand::matrix(&data, 301, 257).unwrap();
    for operand in [rows, rows.transposed()] {
        for text in NUMERICS {
            let numerics = text.parse().unwrap();
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let mut data = data.clone();
                    fake_quantize_in_place(&mut data, [301, 257], &numerics, RANDOM);
                    (quantize(&operand, &numerics, RANDOM), amax(&operand), data)
                })
            };
            let one = on(1);
            assert_eq!(on(2), one, "{text}");
            assert_eq!(on(3), one, "{text}");
        }
    }
}

fn numerics(text: &str) -> Numerics {
    text.parse().unwrap()
}

fn row<'a>(data: &'a [f32]) -> Operand<'a> {
    Operand::matrix(data, 1, data.len()).unwrap()
}

#[test]
fn zero_groups_have_scale_one_and_are_counted() {
    let mut data = vec![0.0; 4 * 64];
    data[70] = 3.0;
    let operand = Operand::matrix(&data, 4, 64).unwrap();
    for (text, degenerate) in [
        ("int8", 0),
        ("int8/channel", 3),
        ("mxfp8", 7),
        ("nvfp4", 15),
        ("e5m2/unscaled", 0),
    ] {
        let found = quantize(&operand, &numerics(text), RandomBits::NONE);
        assert_eq!(found.degenerate_groups, degenerate, "{text}");
        assert!(found.scales.iter().all(|scale| *scale > 0.0));
        assert_eq!(
            found.values.iter().filter(|x| **x != 0.0).count(),
            1,
            "{text}"
        );
    }
    let zeros = [0.0; 10];
    let found = quantize(&row(&zeros), &numerics("int8"), RandomBits::NONE);
    assert_eq!(
        (found.degenerate_groups, found.scales.as_slice()),
        (1, &[1.0][..])
    );
}

#[test]
fn nan_stays_nan_and_infinity_saturates_or_not() {
    for len in [4, 50_000] {
        let mut data = vec![0.5; len];
        data[1] = f32::NAN;
        data[2] = f32::NEG_INFINITY;
        for (name, format) in Format::NAMED {
            if *format == Format::E8M0 {
                continue;
            }
            for suffix in [
                "unscaled/special",
                "tensor/saturate",
                "channel/stochastic",
                "block32/special",
            ] {
                let numerics = numerics(&format!("{name}/{suffix}"));
                let found = quantize(&row(&data), &numerics, RANDOM);
                assert_eq!(found.non_finite, 2, "{name}/{suffix}");
                assert!(found.values[1].is_nan(), "{name}/{suffix}");
                assert_eq!(
                    found.values.iter().filter(|x| x.is_nan()).count(),
                    1 + usize::from(found.values[2].is_nan())
                );
                if suffix.contains("special") && (format.has_infinity() || format.has_nan()) {
                    assert!(!found.values[2].is_finite(), "{name}/{suffix}");
                } else {
                    assert_eq!(found.values[2], -format.max_finite(), "{name}/{suffix}");
                }
                let groups = if numerics.granularity.is_scaled() {
                    1
                } else {
                    0
                };
                assert_eq!(found.degenerate_groups, groups, "{name}/{suffix}");
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_have_scales() {
    let tiny = f32::from_bits(1);
    for (name, format) in Format::NAMED {
        if *format == Format::E8M0 {
            continue;
        }
        for suffix in ["tensor", "tensor/pow2", "block32/e8m0", "block16/two-level"] {
            let numerics = numerics(&format!("{name}/{suffix}"));
            let what = format!("{name}/{suffix}");
            for amax in [
                tiny,
                1e-40,
                f32::MIN_POSITIVE,
                1.0,
                f32::MAX / 2.0,
                f32::MAX,
            ] {
                let data = [amax, -amax, amax / 3.0, 0.0];
                let found = quantize(&row(&data), &numerics, RandomBits::NONE);
                let scale = found.scales[0];
                assert!(
                    scale.is_finite() && scale > 0.0,
                    "{what} {amax:e}: {scale:e}"
                );
                assert!(
                    found.values.iter().all(|x| x.is_finite()),
                    "{what} {amax:e}"
                );
                // Every scale of at least the smallest normal number maps amax near the largest code.
                if scale > f32::MIN_POSITIVE && numerics.rounding == Rounding::Nearest {
                    assert!(
                        found.values[0] * 4.0 >= format.max_finite(),
                        "{what} {amax:e}: {}",
                        found.values[0]
                    );
                }
            }
        }
    }
}

#[test]
fn power_of_two_scales_never_saturate_and_are_the_smallest() {
    for (_, format) in Format::NAMED.iter().filter(|(name, _)| *name != "e8m0") {
        let max = format.max_finite();
        for amax in sample(2000, 21)
            .into_iter()
            .map(f32::abs)
            .filter(|x| *x > 0.0)
        {
            for amax in [
                amax,
                max * 0.5,
                (max * 0.5).next_up(),
                max.next_down(),
                max * 0.25,
            ] {
                let scale = mantissa_quant::ScaleKind::Pow2
                    .scale(*format, amax, amax)
                    .value;
                assert_eq!(scale.to_bits() & 0x7f_ffff, 0);
                let exact = f64::from(amax) / f64::from(scale);
                assert!(exact <= f64::from(max), "{format} {amax:e}");
                assert!(
                    scale == f32::MIN_POSITIVE || exact * 2.0 > f64::from(max),
                    "{format} {amax:e}"
                );
            }
        }
    }
}

#[test]
fn stored_rows_decode_to_what_was_quantized() {
    let data = sample(6 * 70, 17);
    for (text, bytes, scales, scales_per_row) in [
        ("fp32", 4, 0, 0),
        ("tf32", 4, 0, 0),
        ("bf16", 2, 0, 0),
        ("e6m9", 2, 0, 0),
        ("e4m3", 1, 1, 0),
        ("int8/channel", 1, 6, 1),
        ("mxfp4", 1, 18, 3),
        ("int4/block32", 1, 18, 3),
        ("e5m2/unscaled", 1, 0, 0),
        ("nvfp4", 1, 30, 5),
        ("e5m2/tile4x64", 1, 4, 2),
    ] {
        let numerics = numerics(text);
        let stored = quantize_rows(&data, 70, &numerics, RANDOM);
        assert_eq!(stored.bytes_per_code, bytes, "{text}");
        assert_eq!(
            (stored.scales.len(), stored.scales_per_row),
            (scales, scales_per_row),
            "{text}"
        );
        let decoded: Vec<f32> = stored
            .codes
            .chunks(bytes)
            .map(|code| {
                let code = code
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte));
                mantissa_formats::decode(numerics.format, code)
            })
            .collect();
        let expected = quantize(&Operand::matrix(&data, 6, 70).unwrap(), &numerics, RANDOM);
        // Integer codes have no negative zero.
        let unsigned_zero = |xs: &[f32]| xs.iter().map(|x| x + 0.0).collect::<Vec<_>>();
        assert_same(
            &unsigned_zero(&decoded),
            &unsigned_zero(&expected.values),
            text,
        );
    }
    let empty = quantize_rows(&[], 0, &Numerics::BF16, RANDOM);
    assert!(empty.codes.is_empty());
}

#[test]
fn empty_operands_are_fine() {
    for [outer, depth] in [[0, 5], [5, 0], [0, 0]] {
        for text in NUMERICS {
            let operand = Operand::matrix(&[], outer, depth).unwrap();
            let found = quantize(&operand, &numerics(text), RANDOM);
            assert!(
                found.values.is_empty() && found.dequantize().is_empty(),
                "{text}"
            );
            assert_eq!(found.non_finite, 0);
        }
    }
}

#[test]
fn elements_that_overflow_are_counted() {
    let data = [1.0, 70000.0, -1e30, f32::INFINITY, f32::NAN, 65504.0];
    let operand = Operand::matrix(&data, 2, 3).unwrap();
    let count = |numerics: &str| {
        quantize(&operand, &numerics.parse().unwrap(), RandomBits::NONE).non_finite
    };
    assert_eq!(count("fp16"), 4);
    assert_eq!(count("bf16"), 2);
    assert_eq!(count("e4m3/unscaled"), 5);
    assert_eq!(count("fp16/saturate"), 2);
    assert_eq!(count("int8/unscaled"), 2);
    assert_eq!(count("int8/tensor"), 2);
}
