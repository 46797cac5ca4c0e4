//! Elements a second of the slice codec on one thread, as a share of the limit measured in the same run: multiplying the same
//! buffer in place by a constant, which reads and writes the same memory and computes next to nothing.
//!
//! `cargo bench -p mantissa-formats`

use std::hint::black_box;
use std::time::Instant;

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding};

/// Larger than any cache, and small enough for the first one.
const SIZES: [(&str, usize); 2] = [
    ("16 Mi elements, from memory", 1 << 24),
    ("4 Ki elements, from cache", 1 << 12),
];
/// Short samples, and many, so that some are spared by whatever else the machine does.
const ELEMENTS_PER_SAMPLE: usize = 1 << 21;
const SAMPLES: usize = 15;

fn main() {
    for (label, size) in SIZES {
        let mut values = normal(size);
        let mut codes8 = vec![0u8; size];
        let mut codes16 = vec![0u16; size];
        let limit = rate(size, || multiply(black_box(&mut values), black_box(1.0)));
        println!("\n{label}\n{:<34} {:>10}  share of limit", "", "Gelem/s");
        let report = |name: &str, rate: f64| {
            println!("{name:<34} {:>10.3}  {:>5.2}", rate / 1e9, rate / limit)
        };
        report("limit: multiply in place", limit);

        for rounding in [Rounding::Nearest, Rounding::Stochastic] {
            for format in [
                Format::E4M3,
                Format::E5M2,
                Format::BF16,
                Format::FP16,
                Format::INT8,
            ] {
                let rounder = Rounder::new(format, rounding, Overflow::Saturate);
                let random = RandomBits::new(1, 2);
                let rounded = rate(size, || rounder.round(random, 0, black_box(&mut values)));
                report(&format!("round {format} {rounding}"), rounded);
            }
        }
        let random = RandomBits::NONE;
        for format in [Format::E4M3, Format::E2M1, Format::INT8, Format::BF16] {
            let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Saturate);
            let wide = format.bits() > 8;
            let encoded = rate(size, || match wide {
                false => rounder.encode_u8(random, 0, black_box(&values), &mut codes8),
                true => rounder.encode_u16(random, 0, black_box(&values), &mut codes16),
            });
            report(&format!("encode {format}"), encoded);
            let decoded = rate(size, || match wide {
                false => rounder.decode_u8(black_box(&codes8), &mut values),
                true => rounder.decode_u16(black_box(&codes16), &mut values),
            });
            report(&format!("decode {format}"), decoded);
        }
        let mut bits = vec![0; size];
        report(
            "random bits",
            rate(size, || RandomBits::new(1, 2).fill(0, black_box(&mut bits))),
        );
    }
}

/// Elements a second: the best of several samples.
fn rate(size: usize, mut pass: impl FnMut()) -> f64 {
    let passes = (ELEMENTS_PER_SAMPLE / size).max(1);
    let mut best = f64::INFINITY;
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        for _ in 0..passes {
            pass();
        }
        best = best.min(begin.elapsed().as_secs_f64());
    }
    (passes * size) as f64 / best
}

#[inline(never)]
fn multiply(values: &mut [f32], factor: f32) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for x in values.iter_mut() {
                *x *= factor;
            }
        },
    );
}

/// Normal numbers (Box and Muller 1958) wide enough to meet the subnormals and the largest values of the narrow formats.
fn normal(len: usize) -> Vec<f32> {
    let mut bits = vec![0; 2 * len];
    RandomBits::new(3, 4).fill(0, &mut bits);
    let uniform = |bits: u32| (f64::from(bits) + 0.5) / (1u64 << 32) as f64;
    bits.chunks_exact(2)
        .map(|pair| {
            let radius = (-2.0 * uniform(pair[0]).ln()).sqrt();
            (40.0 * radius * (std::f64::consts::TAU * uniform(pair[1])).cos()) as f32
        })
        .collect()
}
