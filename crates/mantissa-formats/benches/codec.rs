//! Elements a second of the slice codec on one thread, as a share of the limit measured in the same rounds: multiplying the same
//! buffer in place by a constant, which reads and writes the same memory and computes next to nothing.
//!
//! `cargo bench -p mantissa-formats`

use std::hint::black_box;

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, SimdLevel};
use pulp::{Simd, WithSimd};

use clock::ThreadTime;

mod clock;

/// Larger than any cache, and small enough for the first one.
const SIZES: [(&str, usize); 2] = [
    ("16 Mi elements, from memory", 1 << 24),
    ("4 Ki elements, from cache", 1 << 12),
];
const ELEMENTS_PER_SAMPLE: usize = 1 << 24;
const ROUNDS: usize = 9;

/// What is timed works on these buffers of one size.
struct Buffers {
    values: Vec<f32>,
    out: Vec<f32>,
    codes8: Vec<u8>,
    codes16: Vec<u16>,
    words: Vec<u32>,
}

type Work = Box<dyn Fn(&mut Buffers)>;

fn main() {
    println!("running on {}", SimdLevel::best());
    for (label, size) in SIZES {
        let mut buffers = Buffers {
            values: normal(size),
            out: vec![1.0; size],
            codes8: vec![0; size],
            codes16: vec![0; size],
            words: vec![0; size],
        };
        let work = work();
        let mut seconds = vec![[0.0; ROUNDS]; work.len()];
        for round in 0..ROUNDS {
            for ((_, work), seconds) in work.iter().zip(&mut seconds) {
                // Rounding leaves nothing to round: every sample begins with the same values.
                let begin = normal(size.min(1 << 16));
                for values in buffers.values.chunks_mut(begin.len()) {
                    values.copy_from_slice(&begin[..values.len()]);
                }
                let passes = ELEMENTS_PER_SAMPLE / size;
                let start = ThreadTime::now();
                for _ in 0..passes {
                    work(black_box(&mut buffers));
                }
                seconds[round] = start.elapsed().as_secs_f64() / (passes * size) as f64;
            }
        }
        println!(
            "\n{label}, the best of {ROUNDS} rounds and the median of their ratios\n{:<34} {:>10}  share of limit",
            "", "Gelem/s"
        );
        for ((name, _), times) in work.iter().zip(&seconds) {
            let mut ratios: Vec<f64> = seconds[0].iter().zip(times).map(|(l, t)| l / t).collect();
            ratios.sort_by(f64::total_cmp);
            let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{name:<34} {:>10.3}  {:>5.2} best, {:>5.2} median",
                1e-9 / best(times),
                best(&seconds[0]) / best(times),
                ratios[ROUNDS / 2]
            );
        }
    }
}

/// Everything that is timed, the limit first.
fn work() -> Vec<(String, Work)> {
    let mut all: Vec<(String, Work)> = Vec::new();
    let mut add = |name: String, work: Work| all.push((name, work));
    add(
        "limit: multiply in place".to_owned(),
        Box::new(|b| SimdLevel::best().dispatch(Multiply(&mut b.values, black_box(1.0)))),
    );
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
            add(
                format!("round {format} {rounding}"),
                Box::new(move |b| rounder.round(random, 0, &mut b.values)),
            );
        }
    }
    let none = RandomBits::NONE;
    let e4m3 = Rounder::new(Format::E4M3, Rounding::Nearest, Overflow::Saturate);
    add(
        "e4m3, divided, to other memory".to_owned(),
        Box::new(move |b| e4m3.round_scaled(none, 0, &b.values, 0.37, &mut b.out)),
    );
    for format in [Format::E4M3, Format::E2M1, Format::INT8] {
        let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Saturate);
        add(
            format!("encode {format}"),
            Box::new(move |b| rounder.encode_u8(none, 0, &b.values, &mut b.codes8)),
        );
        add(
            format!("decode {format}"),
            Box::new(move |b| rounder.decode_u8(&b.codes8, &mut b.out)),
        );
    }
    let int8 = Rounder::new(Format::INT8, Rounding::Stochastic, Overflow::Saturate);
    add(
        "encode int8 stochastic, divided".to_owned(),
        Box::new(move |b| {
            int8.encode_scaled_u8(RandomBits::new(1, 2), 0, &b.values, 0.37, &mut b.codes8);
        }),
    );
    let bf16 = Rounder::new(Format::BF16, Rounding::Nearest, Overflow::Special);
    add(
        "encode bf16".to_owned(),
        Box::new(move |b| bf16.encode_u16(none, 0, &b.values, &mut b.codes16)),
    );
    add(
        "decode bf16".to_owned(),
        Box::new(move |b| bf16.decode_u16(&b.codes16, &mut b.out)),
    );
    add(
        "random bits".to_owned(),
        Box::new(|b| RandomBits::new(1, 2).fill(0, &mut b.words)),
    );
    all
}

struct Multiply<'a>(&'a mut [f32], f32);

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.0 {
            *x *= self.1;
        }
    }
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
