//! Stochastic rounding has the value itself as its mean, over the whole range of every format.

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, decode, encode};

const DRAWS: usize = 1_000_000;

/// The values of the format on either side of a positive `x`.
fn neighbours(format: Format, x: f32) -> (f32, f32) {
    let code = encode(format, x, Rounding::TowardZero, Overflow::Saturate, 0);
    (decode(format, code), decode(format, code + 1))
}

fn draw(format: Format, x: f32, overflow: Overflow, stream: u64) -> Vec<f32> {
    let mut values = vec![x; DRAWS];
    Rounder::new(format, Rounding::Stochastic, overflow).round(
        RandomBits::new(2024, stream),
        0,
        &mut values,
    );
    values
}

/// Fails unless the share `observed` of draws is within four standard errors of `expected`.
fn assert_share(observed: usize, expected: f64, what: &str) {
    let share = observed as f64 / DRAWS as f64;
    let error = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
    assert!(
        (share - expected).abs() <= 4.0 * error,
        "{what}: {share} instead of {expected}, error {error}"
    );
}

/// Positive values strictly between two neighbours: normal ones, below the smallest normal number, and below the largest.
fn inputs(format: Format) -> Vec<(&'static str, f32)> {
    let normal = (format.min_normal() * format.max_finite()).sqrt();
    let normal = neighbours(format, normal.max(format.min_normal())).0;
    let gap = |low: f32, share: f32| {
        let (_, high) = neighbours(format, low);
        low + share * (high - low)
    };
    let max = format.max_finite();
    let before_max = neighbours(format, max.next_down()).0;
    let unit = format.min_subnormal();
    let mut inputs = vec![
        ("normal", gap(normal, 0.3125)),
        ("normal, negative side", -gap(normal, 0.8125)),
        ("near overflow", gap(before_max, 0.75)),
        ("near overflow, just above", gap(before_max, 0.125)),
    ];
    if format != Format::E8M0 {
        let first_normal = format.min_normal();
        inputs.extend([
            ("subnormal, tiny", 0.001 * unit),
            ("subnormal, first gap", 0.37 * unit),
            ("subnormal, second gap", 1.0625 * unit),
            ("subnormal, negative", -0.9 * unit),
            ("below the smallest normal", first_normal - 0.25 * unit),
        ]);
    }
    inputs.retain(|(_, x)| format.is_signed() || *x > 0.0);
    inputs
}

#[test]
fn the_mean_of_a_million_draws_is_the_value() {
    for (stream, (name, format)) in Format::NAMED.iter().enumerate() {
        if *format == Format::FP32 {
            continue; // Every input is a value of the format.
        }
        for (i, (place, x)) in inputs(*format).into_iter().enumerate() {
            let what = format!("{name} {place} {x:e}");
            let (low, high) = neighbours(*format, x.abs());
            let exact = f64::from(x);
            let gap = f64::from(high) - f64::from(low);
            let share = (exact.abs() - f64::from(low)) / gap;
            assert!(
                share > 0.0 && share < 1.0,
                "{what} lies between {low:e} and {high:e}"
            );
            let draws = draw(*format, x, Overflow::Special, (stream * 100 + i) as u64);
            let (low, high) = (low.copysign(x), high.copysign(x));
            assert!(
                draws.iter().all(|y| *y == low || *y == high),
                "{what} went astray"
            );
            let mean = draws.iter().map(|y| f64::from(*y)).sum::<f64>() / DRAWS as f64;
            let error = gap * (share * (1.0 - share) / DRAWS as f64).sqrt();
            assert!(
                (mean - exact).abs() <= 4.0 * error,
                "{what}: mean {mean:e}, standard error {error:e}"
            );
        }
    }
}

/// Past the largest value, the upper neighbour is the one that an unbounded exponent would have.
#[test]
fn overflow_is_as_probable_as_the_way_to_the_next_value() {
    for (stream, (name, format)) in Format::NAMED.iter().enumerate() {
        if !format.has_nan() || format.bits() > 16 {
            continue;
        }
        let max = format.max_finite();
        let before = neighbours(*format, max.next_down()).0;
        // The spacing below the largest value goes on above it, except for E8M0, where each gap is twice the last.
        let next = f64::from(max)
            + f64::from(max - before) * if *format == Format::E8M0 { 2.0 } else { 1.0 };
        let share = 0.375;
        let x = (f64::from(max) + share * (next - f64::from(max))) as f32;
        let draws = draw(*format, x, Overflow::Special, 10_000 + stream as u64);
        assert_share(draws.iter().filter(|y| !y.is_finite()).count(), share, name);
        assert!(
            draw(*format, x, Overflow::Saturate, 1)
                .iter()
                .all(|y| *y == max),
            "{name}"
        );
    }
}

#[test]
fn a_value_of_the_format_never_moves() {
    for (name, format) in Format::NAMED
        .iter()
        .filter(|(_, format)| format.bits() <= 8)
    {
        let rounder = Rounder::new(*format, Rounding::Stochastic, Overflow::Special);
        for code in 0..1u32 << format.bits() {
            let x = decode(*format, code);
            if format.is_integer() && x.abs() > format.max_finite() {
                continue; // The one code that encoding never gives.
            }
            let mut values = [x; 1000];
            rounder.round(RandomBits::new(1, u64::from(code)), 0, &mut values);
            assert!(
                values
                    .iter()
                    .all(|y| y.to_bits() == x.to_bits() || y.is_nan() && x.is_nan()),
                "{name} {x}"
            );
        }
    }
}

/// The probability is exact to 32 bits: the last random word below it goes up, and the next stays down.
#[test]
fn the_probability_is_exact() {
    let up = |format, x, random| {
        mantissa_formats::round(format, x, Rounding::Stochastic, Overflow::Special, random)
    };
    // 1 + 3/8 of E4M3's spacing there, up with probability 3/8.
    let x = 1.0 + 0.125 * 0.375;
    let threshold = 0xa000_0000;
    assert_eq!(up(Format::E4M3, x, threshold), 1.125);
    assert_eq!(up(Format::E4M3, x, threshold - 1), 1.0);
    // A 2^-32th of the smallest subnormal and of an integer step.
    for (format, unit) in [
        (Format::E4M3, Format::E4M3.min_subnormal()),
        (Format::INT8, 1.0),
    ] {
        let x = unit * 2f32.powi(-32);
        assert_eq!(up(format, x, u32::MAX), unit);
        assert_eq!(up(format, x, u32::MAX - 1), 0.0);
        assert_eq!(up(format, x / 2.0, u32::MAX), 0.0);
    }
}
