//! The backward error of Student-t matrices: which format wins at which tail weight and
//! granularity.

use mantissa_formats::RandomBits;
use mantissa_metrics::{BackwardError, ExactProduct, backward_error, sample};
use mantissa_quant::{Numerics, Operand};

#[allow(dead_code, reason = "the example's main prints what this test checks")]
#[path = "../examples/backward_error_table.rs"]
mod table;

use table::{FORMATS, GRANULARITIES, NUS};

/// Independently measured medians: means over six trials, with codes of other software, other draws
/// and f64 accumulation. Columns: int8, e4m3, e5m2 of tensor, channel, block128, block32.
const MEASURED: [[f64; 12]; 8] = [
    [
        0.333, 0.0692, 0.0183, 0.0611, 0.00822, 0.0163, 0.0282, 0.00732, 0.0146, 0.0107, 0.00569,
        0.0114,
    ],
    [
        0.0580, 0.00340, 0.00677, 0.00407, 0.00317, 0.00629, 0.00259, 0.00292, 0.00580, 0.00148,
        0.00247, 0.00492,
    ],
    [
        0.0221, 0.00244, 0.00485, 0.00166, 0.00234, 0.00464, 0.00117, 0.00220, 0.00438, 0.000768,
        0.00195, 0.00388,
    ],
    [
        0.00320, 0.00203, 0.00405, 0.000929, 0.00198, 0.00395, 0.000713, 0.00190, 0.00380,
        0.000517, 0.00173, 0.00346,
    ],
    [
        0.00179, 0.00190, 0.00376, 0.000702, 0.00186, 0.00370, 0.000568, 0.00180, 0.00360,
        0.000435, 0.00166, 0.00331,
    ],
    [
        0.00106, 0.00182, 0.00362, 0.000582, 0.00180, 0.00357, 0.000491, 0.00175, 0.00348,
        0.000391, 0.00162, 0.00323,
    ],
    [
        0.000822, 0.00178, 0.00354, 0.000531, 0.00176, 0.00351, 0.000456, 0.00172, 0.00343,
        0.000371, 0.00160, 0.00319,
    ],
    [
        0.000721, 0.00175, 0.00348, 0.000487, 0.00174, 0.00346, 0.000426, 0.00170, 0.00339,
        0.000353, 0.00158, 0.00317,
    ],
];

/// Standard deviation of a cell from one trial to the next, relative, as
/// `examples/backward_error_table.rs` prints it for six trials.
///
/// One scale for a whole int8 tensor follows the largest of 262144 draws: 45 % at nu = 3, a few
/// percent for a normal. At nu = 1 E4M3 is at the point where underflow sets in, and varies by its
/// own size. Everything else is within 4 %.
fn spread(nu: f64, granularity: &str, format: &str) -> f64 {
    match (granularity, format) {
        ("tensor", "e4m3") if nu == 1.0 => 0.9,
        ("tensor", "int8") if nu == 1.0 => 0.02,
        ("tensor", "int8") if nu < 5.0 => 0.45,
        ("tensor", "int8") if nu < 15.0 => 0.25,
        ("tensor", "int8") => 0.08,
        (_, "int8") if nu < 3.0 => 0.04,
        (_, "int8") if nu < 5.0 => 0.015,
        _ if nu == 1.0 => 0.015,
        _ => 0.007,
    }
}

/// The measured values have three digits.
const ROUNDED: f64 = 0.005;
const TRIALS: u64 = 2;

fn columns(rounding: &str, granularities: &[&str]) -> Vec<Numerics> {
    let mut columns = Vec::new();
    for granularity in granularities {
        for format in FORMATS {
            columns.push(
                format!("{format}/{granularity}/{rounding}")
                    .parse()
                    .unwrap(),
            );
        }
    }
    columns
}

fn medians(nu: f64, numerics: &[Numerics], trials: u64) -> Vec<f64> {
    table::cells(nu, numerics, trials)
        .iter()
        .map(|cell| cell.mean)
        .collect()
}

#[test]
fn medians_agree_with_independent_measurements() {
    let numerics = columns("nearest", &GRANULARITIES);
    let rows: Vec<Vec<f64>> = NUS
        .iter()
        .map(|&nu| medians(nu, &numerics, TRIALS))
        .collect();
    for ((&nu, row), expected) in NUS.iter().zip(&rows).zip(&MEASURED) {
        for (column, (&found, &expected)) in row.iter().zip(expected).enumerate() {
            let (granularity, format) = (GRANULARITIES[column / 3], FORMATS[column % 3]);
            // Three standard errors of the difference between a mean of TRIALS and one of six.
            // Where the spread is as large as the value, the logarithm is what is nearly normal, so
            // the bound is a factor both ways.
            let error = spread(nu, granularity, format) * (1.0 / TRIALS as f64 + 1.0 / 6.0).sqrt();
            let bound = 3.0 * error + ROUNDED;
            let ratio: f64 = found / expected;
            assert!(
                ratio.ln().abs() < bound,
                "{format}/{granularity} at nu {nu}: {found:.3e}, measured {expected:.3e}"
            );
        }
    }
    assert_crossovers(&rows);
    assert_e5m2_is_half_as_fine(&rows);
}

/// E4M3 beats INT8 where tails are heavy, and the finer the scales, the heavier they must be.
fn assert_crossovers(rows: &[Vec<f64>]) {
    // Which of NUS lie on E4M3's side, and which on INT8's; at nu = 8 one scale per tensor is a tie
    // within its spread.
    for (granularity, e4m3, int8) in [
        (
            "tensor",
            &[1.0, 2.0, 3.0, 5.0][..],
            &[15.0, 30.0, f64::INFINITY][..],
        ),
        (
            "channel",
            &[1.0, 2.0],
            &[3.0, 5.0, 8.0, 15.0, 30.0, f64::INFINITY],
        ),
        (
            "block128",
            &[1.0],
            &[2.0, 3.0, 5.0, 8.0, 15.0, 30.0, f64::INFINITY],
        ),
        (
            "block32",
            &[1.0],
            &[2.0, 3.0, 5.0, 8.0, 15.0, 30.0, f64::INFINITY],
        ),
    ] {
        let column = 3 * GRANULARITIES
            .iter()
            .position(|&name| name == granularity)
            .unwrap();
        for (&nu, row) in NUS.iter().zip(rows) {
            let ratio = row[column] / row[column + 1];
            if e4m3.contains(&nu) {
                assert!(
                    ratio > 1.0,
                    "{granularity} at nu {nu}: int8 / e4m3 = {ratio}"
                );
            } else if int8.contains(&nu) {
                assert!(
                    ratio < 1.0,
                    "{granularity} at nu {nu}: int8 / e4m3 = {ratio}"
                );
            } else {
                assert!(
                    (0.6..1.7).contains(&ratio),
                    "{granularity} at nu {nu}: int8 / e4m3 = {ratio}"
                );
            }
        }
    }
}

/// One mantissa bit less is twice the error, except where E4M3's range ends (one scale per tensor
/// at nu = 1).
fn assert_e5m2_is_half_as_fine(rows: &[Vec<f64>]) {
    for (&nu, row) in NUS.iter().zip(rows) {
        for (granularity, cells) in GRANULARITIES.iter().zip(row.chunks(3)) {
            let ratio = cells[2] / cells[1];
            if nu == 1.0 && *granularity == "tensor" {
                assert!(
                    ratio < 0.7,
                    "{granularity} at nu {nu}: e5m2 / e4m3 = {ratio}"
                );
            } else {
                assert!(
                    (1.96..2.02).contains(&ratio),
                    "{granularity} at nu {nu}: e5m2 / e4m3 = {ratio}"
                );
            }
        }
    }
}

#[test]
fn stochastic_rounding_costs_the_root_of_two() {
    let granularities = ["tensor", "block32"];
    let (nearest, stochastic) = (
        columns("nearest", &granularities),
        columns("stochastic", &granularities),
    );
    for nu in [8.0, f64::INFINITY] {
        // The same seeds draw the same matrices, so their spread does not enter the ratio.
        let ratios = medians(nu, &stochastic, 1)
            .into_iter()
            .zip(medians(nu, &nearest, 1))
            .map(|(s, n)| s / n);
        for (ratio, numerics) in ratios.zip(&stochastic) {
            assert!(
                (1.38..1.45).contains(&ratio),
                "{numerics} at nu {nu}: {ratio}"
            );
        }
    }
    // Measured: a normal with one scale per tensor.
    for (found, expected) in medians(f64::INFINITY, &stochastic, 1)
        .iter()
        .zip([0.00102, 0.00247, 0.00494])
    {
        assert!(
            (found / expected - 1.0).abs() < 0.1,
            "{found:.3e}, measured {expected:.3e}"
        );
    }
}

fn numerics(token: &str) -> Numerics {
    token.parse().unwrap()
}

fn nearest(lhs: &Operand, rhs: &Operand, token: &str) -> Option<BackwardError> {
    backward_error(
        lhs,
        &numerics(token),
        RandomBits::NONE,
        rhs,
        &numerics(token),
        RandomBits::NONE,
    )
}

#[test]
fn a_hand_made_product_has_its_errors() {
    // Quantized to whole numbers with scale 1: 0.75 becomes 1 and 0.25 becomes 0.
    let lhs = [127.0, 0.75, 127.0, 0.25, 0.0, 0.0];
    let rhs = [127.0, 1.0];
    let (lhs, rhs) = (
        Operand::matrix(&lhs, 3, 2).unwrap(),
        Operand::matrix(&rhs, 1, 2).unwrap(),
    );
    let error = nearest(&lhs, &rhs, "int8/tensor").unwrap();
    // The third row is all zeros: no denominator.
    assert_eq!((error.count, error.excluded), (2, 1));
    let (first, second) = (0.25 / (127.0 * 127.0 + 0.75), 0.25 / (127.0 * 127.0 + 0.25));
    assert!((error.mean - (first + second) / 2.0).abs() < 1e-12);
    assert!((error.median - (first + second) / 2.0).abs() < 1e-12);
    assert!(error.p99 <= second.max(first) && error.p95 <= error.p99);
    assert_eq!(error.median_interval, None);
}

#[test]
fn a_product_of_zeros_has_no_backward_error() {
    let zeros = [0.0; 64];
    let operand = Operand::matrix(&zeros, 8, 8).unwrap();
    assert_eq!(nearest(&operand, &operand, "e4m3/tensor"), None);
}

#[test]
fn full_precision_errs_by_rounding_only() {
    let values = sample::student_t(3.0, RandomBits::new(8, 0), 64 * 200);
    let operand = Operand::matrix(&values, 64, 200).unwrap();
    let fp32 = nearest(&operand, &operand, "fp32").unwrap();
    assert!(fp32.p99 < 1e-6, "{fp32:?}");
    let bf16 = nearest(&operand, &operand, "bf16").unwrap();
    assert!(
        bf16.median > 100.0 * fp32.median && bf16.p99 < 4e-3,
        "{bf16:?}"
    );
}

#[test]
fn overflow_is_an_infinite_error_and_nan_input_is_left_out() {
    let mut values = sample::student_t(f64::INFINITY, RandomBits::new(9, 0), 32 * 16);
    values[3 * 16] = 1e6;
    values[9 * 16 + 4] = f32::NAN;
    let lhs = Operand::matrix(&values, 32, 16).unwrap();
    let clean = sample::student_t(f64::INFINITY, RandomBits::new(9, 1), 32 * 16);
    let rhs = Operand::matrix(&clean, 32, 16).unwrap();
    let error = nearest(&lhs, &rhs, "e5m2/unscaled").unwrap();
    assert_eq!((error.count, error.excluded), (31 * 32, 32));
    assert!(error.median.is_finite() && error.mean.is_infinite() && error.p99.is_infinite());
    let toml = toml::to_string(&error).unwrap();
    assert_eq!(toml::from_str::<BackwardError>(&toml).unwrap(), error);
    // JSON has no infinity: it goes through null.
    let json = serde_json::to_string(&error).unwrap();
    assert!(json.contains("\"mean\":null"), "{json}");
    assert_eq!(
        serde_json::from_str::<BackwardError>(&json).unwrap().mean,
        f64::INFINITY
    );
}

#[test]
fn the_interval_of_the_median_covers_it() {
    // The median over a whole 512-row product against intervals from 64 of its rows and columns: 95
    // % should cover, and the cautious reading of independence makes that at least so.
    let nu = 5.0;
    let (numerics, trials) = (numerics("e4m3/channel"), 40);
    let full = medians(nu, &[numerics], 1)[0];
    let mut covered = 0;
    for trial in 0..trials {
        let draw = |stream| sample::student_t(nu, RandomBits::new(1000 + trial, stream), 64 * 512);
        let (lhs, rhs) = (draw(0), draw(1));
        let matrix = |data| Operand::matrix(data, 64, 512).unwrap();
        let exact = ExactProduct::new(&matrix(&lhs), &matrix(&rhs));
        let error = exact
            .backward_error(&numerics, RandomBits::NONE, &numerics, RandomBits::NONE)
            .unwrap();
        let interval = error.median_interval.unwrap();
        assert!(interval.low <= error.median && error.median <= interval.high);
        covered += u64::from((interval.low..=interval.high).contains(&full));
    }
    assert!(covered >= trials * 9 / 10, "{covered} of {trials}");
}
