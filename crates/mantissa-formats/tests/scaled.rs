//! The functions with scales equal a division, the scalar codec and a multiplication bit for bit, on every set of vector
//! instructions that this machine has.

use mantissa_formats::{
    Format, Overflow, RandomBits, Rounder, Rounding, SimdLevel, decode, encode,
};

const RANDOM: RandomBits = RandomBits::new(3, 9);
const START: u64 = 5;

fn source(len: u32) -> Vec<f32> {
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        f32::NAN,
        f32::INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
    ];
    (0..len)
        .map(|i| match edges.get(i as usize / 3) {
            Some(edge) if i % 3 == 0 => *edge,
            _ => f32::from_bits(i.wrapping_mul(0x9e37_79b9) ^ i << 5),
        })
        .collect()
}

/// What becomes of a slice by the definitions.
struct Expected {
    codes: Vec<u32>,
    values: Vec<f32>,
    back: Vec<f32>,
}

impl Expected {
    fn new(
        format: Format,
        rounding: Rounding,
        overflow: Overflow,
        source: &[f32],
        scale: impl Fn(usize) -> f32,
    ) -> Self {
        let code = |i: usize| {
            let bits = match rounding {
                Rounding::Stochastic => RANDOM.amount_at(START + i as u64),
                _ => 0,
            };
            encode(format, source[i] / scale(i), rounding, overflow, bits)
        };
        let codes: Vec<u32> = (0..source.len()).map(code).collect();
        let values: Vec<f32> = codes.iter().map(|code| decode(format, *code)).collect();
        let back = values.iter().enumerate().map(|(i, x)| x * scale(i));
        Self {
            back: back.collect(),
            codes,
            values,
        }
    }
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: {a:e}, not {b:e}, at {i}");
    }
}

/// Calls `check` with every named format, rounding, overflow and level.
fn everywhere(check: impl Fn(Format, Rounding, Overflow, &mut dyn Iterator<Item = SimdLevel>)) {
    for (_, format) in Format::NAMED {
        for (_, rounding) in Rounding::NAMED {
            for (_, overflow) in Overflow::NAMED {
                check(*format, *rounding, *overflow, &mut SimdLevel::available());
            }
        }
    }
}

#[test]
fn one_scale() {
    let source = source(1 << 10);
    let n = source.len();
    everywhere(|format, rounding, overflow, levels| {
        // One that is skipped, powers of two and what neighbours them, and quotients that overflow and underflow.
        let scales = [
            1.0,
            0.37,
            0.125,
            0.125f32.next_up(),
            3e-20,
            2e25,
            2f32.powi(-126),
            2f32.powi(-127),
            2f32.powi(126),
            2f32.powi(127),
        ];
        let expected =
            scales.map(|scale| Expected::new(format, rounding, overflow, &source, |_| scale));
        for level in levels {
            let rounder = Rounder::new(format, rounding, overflow).on(level);
            for (scale, expected) in scales.into_iter().zip(&expected) {
                let what = format!("{format} {rounding} {overflow} by {scale:e} on {level}");
                let mut out = vec![f32::NAN; n];
                rounder.round_scaled(RANDOM, START, &source, scale, &mut out);
                assert_same(&out, &expected.values, &what);
                rounder.round_scaled_back(RANDOM, START, &source, scale, &mut out);
                assert_same(&out, &expected.back, &what);
                if format.bits() <= 8 {
                    let mut codes = vec![0; n];
                    rounder.encode_scaled_u8(RANDOM, START, &source, scale, &mut codes);
                    let wide: Vec<u32> = codes.iter().map(|code| u32::from(*code)).collect();
                    assert_eq!(wide, expected.codes, "{what}");
                    rounder.decode_scaled_u8(&codes, scale, &mut out);
                    assert_same(&out, &expected.back, &what);
                }
            }
        }
    });
}

#[test]
fn a_scale_for_each_run() {
    let source = source(400);
    let n = source.len();
    everywhere(|format, rounding, overflow, levels| {
        let levels: Vec<SimdLevel> = levels.collect();
        for run in [1, 7, 16, 32, 48, 64, 100, 128, 1000] {
            // Powers of two now and then, so that some blocks have nothing else and some have both.
            let scales: Vec<f32> = (0..n.div_ceil(run))
                .map(|i| [0.3, 0.25, 4.0, 0.5, 1.0, 2.0, 8.0, 1e-3][i / 3 % 8])
                .collect();
            let scale = |i: usize| scales[i / run];
            let expected = Expected::new(format, rounding, overflow, &source, scale);
            for level in &levels {
                let rounder = Rounder::new(format, rounding, overflow).on(*level);
                let what = format!("{format} {rounding} {overflow} in runs of {run} on {level}");
                let mut out = vec![f32::NAN; n];
                rounder.round_runs(RANDOM, START, &source, &scales, run, &mut out);
                assert_same(&out, &expected.values, &what);
                rounder.round_runs_back(RANDOM, START, &source, &scales, run, &mut out);
                assert_same(&out, &expected.back, &what);
                out.copy_from_slice(&source);
                rounder.round_runs_in_place(RANDOM, START, &mut out, &scales, run);
                assert_same(&out, &expected.back, &what);
                if format.bits() <= 8 {
                    let mut codes = vec![0; n];
                    rounder.encode_runs_u8(RANDOM, START, &source, &scales, run, &mut codes);
                    let wide: Vec<u32> = codes.iter().map(|code| u32::from(*code)).collect();
                    assert_eq!(wide, expected.codes, "{what}");
                }
            }
        }
    });
}

/// More of them than are looked at together: first powers of two alone, then others with them, then such that need a division.
#[test]
fn many_short_runs() {
    let source = source(1 << 13);
    let n = source.len();
    for (format, run) in [Format::E4M3, Format::INT8, Format::E2M1]
        .into_iter()
        .flat_map(|format| [16, 32].map(|run| (format, run)))
    {
        let scales: Vec<f32> = (0..n / run)
            .map(|i| match i {
                0..70 => [0.25, 4.0, 1.0][i % 3],
                70..150 => [0.25, 0.3, 7.0][i % 3],
                _ => [0.25, 0.3, 3e-20][i % 3],
            })
            .collect();
        let (rounding, overflow) = (Rounding::Nearest, Overflow::Saturate);
        let expected = Expected::new(format, rounding, overflow, &source, |i| scales[i / run]);
        for level in SimdLevel::available() {
            let rounder = Rounder::new(format, rounding, overflow).on(level);
            let mut out = source.clone();
            rounder.round_runs_in_place(RANDOM, START, &mut out, &scales, run);
            assert_same(&out, &expected.back, &format!("{format} {run} on {level}"));
        }
    }
}

#[test]
#[should_panic(expected = "2 scales for runs of 10 do not reach over 21 elements")]
fn scales_have_to_reach() {
    let rounder = Rounder::new(Format::E4M3, Rounding::Nearest, Overflow::Saturate);
    rounder.round_runs_in_place(RANDOM, 0, &mut [1.0; 21], &[1.0; 2], 10);
}
