//! What rounding means, checked without the codec's own arithmetic.

use mantissa_formats::{Format, Overflow, Rounding, decode, encode, round};
use proptest::prelude::*;

const ROUNDINGS: [Rounding; 4] = [
    Rounding::Nearest,
    Rounding::Stochastic,
    Rounding::TowardZero,
    Rounding::NearestAway,
];

fn any_format() -> impl Strategy<Value = Format> {
    let named: Vec<Format> = Format::NAMED.iter().map(|named| named.1).collect();
    prop_oneof![
        prop::sample::select(named),
        (2u8..=8, 0u8..=23).prop_map(|(x, y)| Format::float(x, y).unwrap()),
        (2u8..=8).prop_map(|bits| Format::int(bits).unwrap()),
    ]
}

/// Any f32 at all, or one within the reach of most formats.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        (-600.0f32..600.0),
        (-1.0f32..1.0),
        (-1e-3f32..1e-3)
    ]
}

/// Every finite value of a narrow format, in order and once.
fn values(format: Format) -> Vec<f32> {
    let mut values: Vec<f32> = (0..1 << format.bits())
        .map(|code| decode(format, code))
        .filter(|x| x.is_finite() && x.abs() <= format.max_finite())
        .collect();
    values.sort_by(f32::total_cmp);
    values.dedup();
    values
}

/// Failing inputs are printed; nothing is written into the source tree.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn rounding_twice_is_rounding_once(format in any_format(), x in any_value(), random: u32, again: u32) {
        for rounding in ROUNDINGS {
            for overflow in [Overflow::Special, Overflow::Saturate] {
                let once = round(format, x, rounding, overflow, random);
                let twice = round(format, once, rounding, overflow, again);
                prop_assert!(once.to_bits() == twice.to_bits() || once.is_nan() || !format.has_nan() && x.is_nan(), "{format} {rounding} {x:e} {once:e} {twice:e}");
                prop_assert!(encode(format, x, rounding, overflow, random) >> (format.bits() - 1) <= 1);
            }
        }
    }

    #[test]
    fn order_is_kept(format in any_format(), a in any_value(), b in any_value(), random: u32) {
        prop_assume!(!a.is_nan() && !b.is_nan());
        let (a, b) = if format.is_signed() { (a, b) } else { (a.abs() + f32::MIN_POSITIVE, b.abs() + f32::MIN_POSITIVE) };
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        for rounding in ROUNDINGS {
            let (low, high) = (round(format, a, rounding, Overflow::Saturate, random), round(format, b, rounding, Overflow::Saturate, random));
            // One random word decides alike for two values of the same sign only.
            if rounding != Rounding::Stochastic || a.is_sign_negative() == b.is_sign_negative() {
                prop_assert!(low <= high, "{format} {rounding}: {a:e} to {low:e}, {b:e} to {high:e}");
            }
        }
    }

    #[test]
    fn the_sign_makes_no_difference_to_the_magnitude(format in any_format(), x in any_value(), random: u32) {
        prop_assume!(format.is_signed());
        for rounding in ROUNDINGS {
            let (plus, minus) = (round(format, x, rounding, Overflow::Special, random), round(format, -x, rounding, Overflow::Special, random));
            prop_assert!(plus.abs() == minus.abs() || plus.is_nan() && minus.is_nan());
        }
    }

    /// A neighbour on either side, the nearer one or either of two equally near, found by looking at all of them.
    #[test]
    fn a_value_goes_to_the_neighbour_that_the_rounding_says(
        format in any_format().prop_filter("narrow", |format| format.bits() <= 8 && format.is_signed()),
        x in any_value(),
        random: u32,
    ) {
        prop_assume!(!x.is_nan());
        let values = values(format);
        let clamped = x.clamp(values[0], values[values.len() - 1]);
        let below = *values.iter().rfind(|value| **value <= clamped).unwrap();
        let above = *values.iter().find(|value| **value >= clamped).unwrap();
        let distance = |to: f32| (f64::from(to) - f64::from(clamped)).abs();
        for rounding in ROUNDINGS {
            let rounded = round(format, x, rounding, Overflow::Saturate, random);
            prop_assert!(rounded == below || rounded == above, "{format} {rounding} {x:e} {rounded:e}");
            let other = if rounded == below { above } else { below };
            match rounding {
                Rounding::Nearest if distance(rounded) == distance(other) && below != above => {
                    prop_assert_eq!(encode(format, rounded, rounding, Overflow::Saturate, 0) & 1, 0);
                }
                Rounding::NearestAway if distance(rounded) == distance(other) => prop_assert!(rounded.abs() >= other.abs()),
                Rounding::Nearest | Rounding::NearestAway => prop_assert!(distance(rounded) <= distance(other)),
                Rounding::TowardZero => prop_assert!(rounded.abs() <= x.abs()),
                Rounding::Stochastic => {}
            }
        }
    }

    #[test]
    fn fp32_keeps_every_value(x in any_value(), random: u32) {
        prop_assume!(!x.is_nan());
        for rounding in ROUNDINGS {
            prop_assert_eq!(round(Format::FP32, x, rounding, Overflow::Special, random).to_bits(), x.to_bits());
        }
    }
}

#[test]
fn overflow_begins_at_the_threshold() {
    for (name, format) in Format::NAMED
        .iter()
        .filter(|(_, format)| *format != Format::FP32)
    {
        let edge = format.overflow_threshold();
        let nearest = |x, overflow| round(*format, x, Rounding::Nearest, overflow, 0);
        assert_eq!(
            nearest(edge.next_down(), Overflow::Special),
            format.max_finite(),
            "{name}"
        );
        assert_eq!(
            nearest(edge, Overflow::Saturate),
            format.max_finite(),
            "{name}"
        );
        assert_eq!(
            nearest(f32::INFINITY, Overflow::Saturate),
            format.max_finite(),
            "{name}"
        );
        let past = nearest(edge, Overflow::Special);
        match (format.has_infinity(), format.has_nan()) {
            (true, _) => assert_eq!(past, f32::INFINITY, "{name}"),
            (false, true) => assert!(past.is_nan(), "{name}"),
            (false, false) => assert_eq!(past, format.max_finite(), "{name}"),
        }
    }
    assert!(
        round(
            Format::E4M3,
            -464.0,
            Rounding::Nearest,
            Overflow::Special,
            0
        ) == -448.0
    );
    assert!(
        round(
            Format::E4M3,
            -464.1,
            Rounding::Nearest,
            Overflow::Special,
            0
        )
        .is_nan()
    );
    assert!(
        round(
            Format::E5M2,
            61439.0,
            Rounding::Nearest,
            Overflow::Special,
            0
        ) == 57344.0
    );
    assert!(
        round(
            Format::E5M2,
            -61440.0,
            Rounding::Nearest,
            Overflow::Special,
            0
        ) == f32::NEG_INFINITY
    );
}

#[test]
fn towards_zero_only_infinity_overflows() {
    for (name, format) in Format::NAMED {
        let toward_zero = |x| round(*format, x, Rounding::TowardZero, Overflow::Special, 0);
        assert_eq!(toward_zero(f32::MAX), format.max_finite(), "{name}");
        let infinity = toward_zero(f32::INFINITY);
        assert_eq!(infinity.is_finite(), !format.has_nan(), "{name}");
    }
}

#[test]
fn nan_stays_nan_where_there_is_one() {
    for (name, format) in Format::NAMED {
        for overflow in [Overflow::Special, Overflow::Saturate] {
            for rounding in ROUNDINGS {
                for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001)] {
                    let rounded = round(*format, nan, rounding, overflow, !0);
                    assert_eq!(rounded.is_nan(), format.has_nan(), "{name}");
                    assert!(rounded.is_nan() || rounded == 0.0, "{name}");
                }
            }
        }
    }
}

#[test]
fn zeros_keep_their_sign_where_they_have_one() {
    for (name, format) in Format::NAMED
        .iter()
        .filter(|(_, format)| format.is_signed())
    {
        for zero in [-0.0, -f32::from_bits(1)] {
            if *format == Format::FP32 && zero != 0.0 {
                continue;
            }
            let rounded = round(*format, zero, Rounding::Nearest, Overflow::Special, 0);
            assert_eq!(rounded, 0.0, "{name}");
            assert_eq!(
                rounded.is_sign_negative(),
                format.has_negative_zero(),
                "{name}"
            );
        }
    }
}
