//! Every metric against a slow f64 reference written with the scalar codec.

use mantissa_formats::{Format, Overflow, RandomBits, Rounding, codec};
use mantissa_metrics::sample::student_t;
use mantissa_plan::Pass;
use mantissa_quant::Numerics;

use crate::{GAUSS, both, draw, numerics, outcome, sample, site_outcome};

const BATCH: usize = 2;
const ROWS: [usize; 2] = [7, 9];
const DEPTH: usize = 64;

/// One scale for each block of a row, written out: what a product sees, and which elements are clipped.
fn quantized(
    rows: &[f32],
    format: Format,
    block: usize,
    scale: impl Fn(f32) -> f32,
) -> (Vec<f64>, Vec<bool>) {
    let mut values = Vec::new();
    let mut clipped = Vec::new();
    for block in rows.chunks(block) {
        let scale = scale(block.iter().fold(0f32, |top, x| top.max(x.abs())));
        for x in block {
            let y = x / scale;
            clipped.push(y.abs() >= format.overflow_threshold());
            let code = codec::round(format, y, Rounding::Nearest, Overflow::Saturate, 0);
            values.push(f64::from(code * scale));
        }
    }
    (values, clipped)
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-6 * expected.abs().max(1e-6)
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn quantile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = p * (sorted.len() - 1) as f64;
    let low = sorted[place as usize];
    let high = sorted[(place as usize + 1).min(sorted.len() - 1)];
    low + (high - low) * place.fract()
}

#[test]
fn every_metric_equals_its_definition() {
    let mut sides = [0, 1].map(|side| {
        student_t(
            3.0,
            RandomBits::new(9, side as u64),
            BATCH * ROWS[side] * DEPTH,
        )
    });
    // Exact zeros, which are no underflow, and a tensor whose largest element lies in rows that were not sampled.
    sides[0][..20].fill(0.0);
    let mut measured = sample(sides.clone(), BATCH, DEPTH);
    measured.left_amax *= 3.0;
    let tensor_amax = measured.left_amax;
    let e8m0 = |amax: f32| (amax.log2().floor() - 8.0).exp2();
    type Quantized = (Vec<f64>, Vec<bool>);
    let cases: [(&str, &str, Quantized, Quantized); 2] = [
        (
            "int8/tensor",
            "mxfp8",
            quantized(&sides[0], Format::INT8, usize::MAX, |_| tensor_amax / 127.0),
            quantized(&sides[1], Format::E4M3, 32, e8m0),
        ),
        (
            "e5m2/channel",
            "int8/block32",
            quantized(&sides[0], Format::E5M2, DEPTH, |amax| match amax {
                0.0 => 1.0,
                amax => amax / 57344.0,
            }),
            quantized(&sides[1], Format::INT8, 32, |amax| amax / 127.0),
        ),
    ];
    for (left, right, (l, l_clipped), (r, r_clipped)) in cases {
        let pair = mantissa_plan::PassNumerics {
            left: numerics(left),
            right: numerics(right),
        };
        let pairs = mantissa_plan::whatif::Pairs::Asked(vec![pair]);
        let error = outcome(vec![measured.clone()], pairs).pairs[0];

        for (found, x, q, clipped) in [
            (error.left, &sides[0], &l, &l_clipped),
            (error.right, &sides[1], &r, &r_clipped),
        ] {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let pairs = || x.iter().zip(q);
            let squares: Vec<f64> = pairs().map(|(x, q)| (q - x).powi(2)).collect();
            let mse = mean(squares.iter().copied());
            let signal = mean(x.iter().map(|x| x * x));
            let bias = mean(pairs().map(|(x, q)| q - x)) / mean(x.iter().map(|x| x.abs()));
            let lost = mean(pairs().map(|(&x, &q)| f64::from(u8::from(x != 0.0 && q == 0.0))));
            let share = mean(clipped.iter().map(|&clipped| f64::from(u8::from(clipped))));
            let of_clipped: f64 = squares
                .iter()
                .zip(clipped)
                .filter(|(_, clipped)| **clipped)
                .map(|(square, _)| square)
                .sum();
            let clipping = of_clipped / squares.iter().sum::<f64>();
            assert!(close(found.mse.unwrap().value, mse), "{left} x {right}");
            assert!(close(
                found.sqnr_db.unwrap().value,
                10.0 * (signal / mse).log10()
            ));
            assert!(close(found.signed_bias.unwrap().value, bias));
            assert!(close(found.bias.estimate, bias.abs()));
            assert!(close(found.cosine.unwrap().value, cosine(&x, q)));
            assert_eq!(found.underflow.estimate, lost, "{left} x {right}");
            assert_eq!(found.saturation.estimate, share, "{left} x {right}");
            assert!(close(found.clipping.unwrap().value, clipping));
        }
        if right == "mxfp8" {
            assert!(error.left.underflow.estimate > 0.0 && error.right.saturation.estimate > 0.0);
            assert!(error.right.clipping.unwrap().value > error.right.saturation.estimate);
        }

        let (mut exact, mut result, mut signed) = (Vec::new(), Vec::new(), Vec::new());
        for matrix in 0..BATCH {
            for i in 0..ROWS[0] {
                for j in 0..ROWS[1] {
                    let at =
                        |side: usize, row: usize, k: usize| (matrix * ROWS[side] + row) * DEPTH + k;
                    let sum = |f: &dyn Fn(usize, usize) -> f64| -> f64 {
                        (0..DEPTH).map(|k| f(at(0, i, k), at(1, j, k))).sum()
                    };
                    let x = |i: usize, j: usize| f64::from(sides[0][i]) * f64::from(sides[1][j]);
                    let (p, q) = (sum(&x), sum(&|i, j| l[i] * r[j]));
                    exact.push(p);
                    result.push(q);
                    signed.push((q - p) / sum(&|i, j| x(i, j).abs()));
                }
            }
        }
        let magnitudes: Vec<f64> = signed.iter().map(|x| x.abs()).collect();
        // The product itself is in f32, so its last bits differ.
        let near = |found: f64, expected: f64| (found - expected).abs() < 3e-7;
        let product = error.product.unwrap();
        assert!(near(product.median, quantile(&magnitudes, 0.5)));
        assert!(near(product.p95, quantile(&magnitudes, 0.95)));
        assert!(near(product.p99, quantile(&magnitudes, 0.99)));
        let found = error.signed.unwrap();
        let bias = mean(signed.iter().copied());
        let variance = mean(signed.iter().map(|x| (x - bias).powi(2)));
        assert!(near(found.bias.value, bias) && bias != 0.0);
        assert!((found.variance / variance - 1.0).abs() < 1e-3);
        assert!(near(found.cosine.unwrap().value, cosine(&exact, &result)));
        let signs = |values: &[f64]| values.iter().map(|x| x.signum()).collect::<Vec<_>>();
        let agreement = cosine(&signs(&exact), &signs(&result));
        assert!(near(found.sign_cosine.unwrap().value, agreement));
    }
}

#[test]
fn stochastic_rounding_is_noisier_by_the_square_root_of_two() {
    for format in ["int8/tensor", "e4m3/tensor", "e4m3/block32"] {
        let stochastic = format!("{format}/stochastic");
        let pairs = both(&[format, &stochastic]);
        let errors = outcome(vec![draw(GAUSS, 1, 128, 512)], pairs).pairs;
        let [nearest, stochastic] = [0, 1].map(|i| errors[i].signed.unwrap());
        let factor = (stochastic.variance / nearest.variance).sqrt();
        assert!((1.36..1.46).contains(&factor), "{format}: {factor}");
        let medians = [0, 1].map(|i| errors[i].product.unwrap().median);
        let factor = medians[1] / medians[0];
        assert!((1.36..1.46).contains(&factor), "{format}: {factor}");
    }
}

/// Seeded trials on a few rows, held against the values of many: 95 % of the intervals should hold them.
#[test]
fn intervals_cover_what_more_rows_would_tell() {
    const TRIALS: u64 = 80;
    let tried: Numerics = numerics("e4m3/channel");
    let error = |seed, rows| {
        let pairs = both(&["e4m3/channel"]);
        let site = site_outcome(Pass::GradRhs, vec![draw(6.0, seed, rows, 128)], pairs);
        *site.passes[0].same(tried).unwrap()
    };
    let truth = error(1000, 1024);
    let names = [
        "cosine",
        "sign cosine",
        "bias",
        "median",
        "mse",
        "SQNR",
        "operand's cosine",
        "operand's bias",
    ];
    let mut covered = [0; 8];
    for trial in 0..TRIALS {
        let found = error(trial, 24);
        let (signed, product) = (found.signed.unwrap(), found.product.unwrap());
        let (true_signed, true_product) = (truth.signed.unwrap(), truth.product.unwrap());
        let intervals = [
            (
                signed.cosine.unwrap().interval,
                true_signed.cosine.unwrap().value,
            ),
            (
                signed.sign_cosine.unwrap().interval,
                true_signed.sign_cosine.unwrap().value,
            ),
            // Rounding to nearest of what is symmetric leans to neither side.
            (signed.bias.interval, 0.0),
            (product.median_interval, true_product.median),
            (
                found.left.mse.unwrap().interval,
                truth.left.mse.unwrap().value,
            ),
            (
                found.left.sqnr_db.unwrap().interval,
                truth.left.sqnr_db.unwrap().value,
            ),
            (
                found.left.cosine.unwrap().interval,
                truth.left.cosine.unwrap().value,
            ),
            (found.left.signed_bias.unwrap().interval, 0.0),
        ];
        for (count, (interval, value)) in covered.iter_mut().zip(intervals) {
            let interval = interval.unwrap();
            *count += u64::from(interval.low <= value && value <= interval.high);
        }
    }
    for (name, covered) in names.iter().zip(covered) {
        let share = covered as f64 / TRIALS as f64;
        // Heavy tails make the scatter of a few rows too small now and then.
        assert!(share >= 0.85, "{name}: {share}");
    }
}
