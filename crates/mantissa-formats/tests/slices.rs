//! The slice codec equals the scalar codec bit for bit, on every set of vector instructions that this machine has.

use mantissa_formats::{
    Format, Overflow, RandomBits, Rounder, Rounding, SimdLevel, decode, encode,
};
use proptest::prelude::*;

/// Named formats, and some that nobody named.
fn formats() -> Vec<Format> {
    let unnamed = [
        "e6m9", "e2m0", "e5m0", "e8m3", "e3m0", "e7m23", "e2m23", "e8m22", "e4m11", "e7m8", "int2",
        "int6",
    ];
    let named = Format::NAMED.iter().map(|named| named.1);
    named
        .chain(unnamed.map(|name| name.parse().unwrap()))
        .collect()
}

fn settings() -> impl Iterator<Item = (Rounding, Overflow)> {
    let roundings = Rounding::NAMED.iter().map(|named| named.1);
    roundings.flat_map(|rounding| Overflow::NAMED.iter().map(move |named| (rounding, named.1)))
}

/// Compares every slice function on `source` with the scalar codec, on every level.
fn check(
    format: Format,
    rounding: Rounding,
    overflow: Overflow,
    random: RandomBits,
    start: u64,
    source: &[f32],
) {
    let bits_at = |i: usize| match rounding {
        Rounding::Stochastic => random.amount_at(start.wrapping_add(i as u64)),
        _ => 0,
    };
    let expected: Vec<u32> = (0..source.len())
        .map(|i| encode(format, source[i], rounding, overflow, bits_at(i)))
        .collect();
    for level in SimdLevel::available() {
        let rounder = Rounder::new(format, rounding, overflow).on(level);
        let context = |i: usize| {
            format!(
                "{format} {rounding} {overflow} on {level}: {:e} ({:x}) at {i}",
                source[i],
                source[i].to_bits()
            )
        };
        let mut rounded = source.to_vec();
        rounder.round(random, start, &mut rounded);
        for (i, code) in expected.iter().enumerate() {
            let expected = decode(format, *code);
            assert_eq!(
                rounded[i].to_bits(),
                expected.to_bits(),
                "{} rounded to {}, not {expected}",
                context(i),
                rounded[i]
            );
        }
        if format.bits() <= 8 {
            let mut codes = vec![0u8; source.len()];
            rounder.encode_u8(random, start, source, &mut codes);
            for (i, code) in codes.iter().enumerate() {
                let what = || format!("{} encoded in 8 bits", context(i));
                assert_eq!(u32::from(*code), expected[i], "{}", what());
            }
        }
        if format.bits() <= 16 {
            let mut codes = vec![0u16; source.len()];
            rounder.encode_u16(random, start, source, &mut codes);
            for (i, code) in codes.iter().enumerate() {
                let what = || format!("{} encoded in 16 bits", context(i));
                assert_eq!(u32::from(*code), expected[i], "{}", what());
            }
        }
    }
}

#[test]
fn this_machine_has_levels_and_the_best_is_one_of_them() {
    let levels: Vec<SimdLevel> = SimdLevel::available().collect();
    assert_eq!(levels[0], SimdLevel::PORTABLE);
    assert!(levels.contains(&SimdLevel::best()));
    #[cfg(target_arch = "x86_64")]
    for (name, present) in [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512", is_x86_feature_detected!("avx512f")),
    ] {
        assert_eq!(levels.iter().any(|level| level.name() == name), present);
    }
}

/// Values that are hard to round in a format: around its ends, its ties and its subnormals, and any bits at all.
fn hard(format: Format, len: usize) -> Vec<f32> {
    let edges = [
        0.0,
        -0.0,
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::from_bits(1),
        format.max_finite(),
        format.overflow_threshold(),
        format.min_normal(),
        1.5 * format.min_subnormal(),
        0.5 * format.min_subnormal(),
    ];
    let random = RandomBits::new(17, format.bits().into());
    (0..len)
        .map(|i| {
            let bits = random.at(i as u64);
            match bits % 4 {
                0 => f32::from_bits(bits),
                1 => {
                    let edge = edges[i % edges.len()];
                    f32::from_bits(edge.to_bits().wrapping_add((bits >> 8) % 3).wrapping_sub(1))
                }
                // A tie, or next to one.
                2 => {
                    let code = random.at(!(i as u64)) & ((1u64 << format.bits()) - 1) as u32;
                    let (low, high) = (decode(format, code), decode(format, code.wrapping_add(1)));
                    let tie = low / 2.0 + high / 2.0;
                    f32::from_bits(tie.to_bits().wrapping_add((bits >> 8) % 3).wrapping_sub(1))
                }
                _ => (bits as i32 >> 8) as f32 * 2f32.powi(-20) * format.max_finite().min(1e30),
            }
        })
        .collect()
}

/// Blocks, what is left after them, and where a block of random bits begins.
#[test]
fn every_length_from_every_place() {
    for format in formats() {
        let source = hard(format, 200);
        for (rounding, overflow) in settings() {
            let at = |len: usize| (7 * len + rounding as usize) % 67;
            for len in 0..=130 {
                let start = 64 * 5 + at(len) as u64 - 3;
                let source = &source[at(len)..at(len) + len];
                check(
                    format,
                    rounding,
                    overflow,
                    RandomBits::new(5, 6),
                    start,
                    source,
                );
            }
        }
    }
}

/// Every sign and exponent with the mantissas around each tie of a narrow format.
#[test]
fn sweep_of_all_exponents() {
    let lows = [0, 1, 0x8000, 0xffff];
    let source: Vec<f32> = (0..1u32 << 16)
        .flat_map(|high| lows.map(|low| f32::from_bits(high << 16 | low)))
        .collect();
    for format in formats() {
        // The grids of wide formats are not met by these mantissas any better than by a sample of them.
        let step = if format.bits() <= 16 { 1 } else { 13 };
        let source: Vec<f32> = source.iter().copied().step_by(step).collect();
        for (rounding, overflow) in settings() {
            check(
                format,
                rounding,
                overflow,
                RandomBits::new(5, 6),
                7,
                &source,
            );
        }
    }
}

/// Around representable values, all of them in narrow formats, where the scalar and the vector code could part.
#[test]
fn sweep_of_codes() {
    for format in formats() {
        let codes = (1u64 << format.bits()).min(1 << 13);
        let stride = ((1u64 << format.bits()) / codes) as u32 | 1;
        let source: Vec<f32> = (0..codes as u32)
            .map(|i| decode(format, i.wrapping_mul(stride)))
            .flat_map(|x| {
                [-1i32, 0, 1].map(|ulp| f32::from_bits(x.to_bits().wrapping_add_signed(ulp)))
            })
            .collect();
        for (rounding, overflow) in settings() {
            check(
                format,
                rounding,
                overflow,
                RandomBits::new(5, 6),
                7,
                &source,
            );
        }
    }
}

#[test]
fn every_code_decodes_alike() {
    for (format, level) in formats()
        .into_iter()
        .flat_map(|format| SimdLevel::available().map(move |level| (format, level)))
    {
        let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Special).on(level);
        let expected = |code: u32| decode(format, code).to_bits();
        // In pieces of all lengths, so that what is left after blocks is met too.
        if format.bits() <= 8 {
            let codes: Vec<u8> = (0..=255).collect();
            for len in 0..=256 {
                let mut values = vec![0.0; len];
                rounder.decode_u8(&codes[256 - len..], &mut values);
                for (code, x) in codes[256 - len..].iter().zip(values) {
                    let what = format!("{format} {code:x} on {level}");
                    assert_eq!(x.to_bits(), expected(u32::from(*code)), "{what}");
                }
            }
        }
        if format.bits() <= 16 {
            let codes: Vec<u16> = (0..=u16::MAX).collect();
            let mut values = vec![0.0; codes.len()];
            rounder.decode_u16(&codes, &mut values);
            for (code, x) in codes.iter().zip(values) {
                let what = format!("{format} {code:x} on {level}");
                assert_eq!(x.to_bits(), expected(u32::from(*code)), "{what}");
            }
        }
    }
}

/// A piece of a slice, rounded on its own, is what it is in the whole.
#[test]
fn cutting_a_slice_changes_nothing() {
    let random = RandomBits::new(9, 1);
    let mut whole: Vec<f32> = (0..1000).map(|i| (i as f32).sin() * 20.0).collect();
    let source = whole.clone();
    let rounder = Rounder::new(Format::E4M3, Rounding::Stochastic, Overflow::Saturate);
    rounder.round(random, 3, &mut whole);
    for cut in [1, 17, 61, 64, 500, 999] {
        let mut pieces = source.clone();
        let (left, right) = pieces.split_at_mut(cut);
        rounder.round(random, 3, left);
        rounder.round(random, 3 + cut as u64, right);
        assert_eq!(pieces, whole);

        let (left, right) = pieces.split_at_mut(cut);
        left.copy_from_slice(&source[..cut]);
        right.copy_from_slice(&source[cut..]);
        rounder.round(random.skip(3), 0, left);
        rounder.round(random.skip(3).skip(cut as u64), 0, right);
        assert_eq!(pieces, whole);
    }
}

#[test]
#[should_panic(expected = "fp16 does not fit 8 bits")]
fn wide_codes_do_not_fit_bytes() {
    Rounder::new(Format::FP16, Rounding::Nearest, Overflow::Special).encode_u8(
        RandomBits::NONE,
        0,
        &[1.0],
        &mut [0],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_slice_of_any_length_from_any_start(
        format in prop::sample::select(formats()),
        setting in prop::sample::select(settings().collect::<Vec<_>>()),
        seed: u64,
        start: u64,
        bits in prop::collection::vec(any::<u32>(), 0..200),
        skip in 0usize..16,
        near in -3.0f32..1.0,
    ) {
        // Half of the values anywhere, half in the format's own range.
        let edge = format.max_finite().log2().max(1.0);
        let source: Vec<f32> = bits.iter().enumerate().map(|(i, bits)| match i % 2 {
            0 => f32::from_bits(*bits),
            _ => f32::from_bits(bits & 0x807f_ffff | 0x3f80_0000) * (near * edge).exp2(),
        }).collect();
        let source = &source[skip.min(source.len())..];
        check(format, setting.0, setting.1, RandomBits::new(seed, !seed), start, source);
    }
}

/// Every f32 there is. Minutes: `cargo test --release -p mantissa-formats -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn every_f32() {
    std::thread::scope(|scope| {
        for format in [Format::E4M3, Format::E5M2] {
            scope.spawn(move || every_f32_to_nearest(format));
        }
    });
}

fn every_f32_to_nearest(format: Format) {
    const CHUNK: u32 = 1 << 16;
    let rounders: Vec<Rounder> = SimdLevel::available()
        .map(|level| Rounder::new(format, Rounding::Nearest, Overflow::Special).on(level))
        .collect();
    let mut codes = vec![0u8; CHUNK as usize];
    for chunk in 0..1u32 << 16 {
        let source: Vec<f32> = (0..CHUNK)
            .map(|i| f32::from_bits(chunk * CHUNK + i))
            .collect();
        let expected: Vec<u32> = source
            .iter()
            .map(|x| encode(format, *x, Rounding::Nearest, Overflow::Special, 0))
            .collect();
        for rounder in &rounders {
            let mut rounded = source.clone();
            rounder.encode_u8(RandomBits::NONE, 0, &source, &mut codes);
            rounder.round(RandomBits::NONE, 0, &mut rounded);
            for (i, expected) in expected.iter().enumerate() {
                let x = source[i];
                assert_eq!(u32::from(codes[i]), *expected, "{format}: {x:e}");
                assert_eq!(
                    rounded[i].to_bits(),
                    decode(format, *expected).to_bits(),
                    "{format}: {x:e}"
                );
            }
        }
    }
}
