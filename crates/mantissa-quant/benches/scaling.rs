//! Elements a second of scaling and quantizing, on one thread, as shares of limits measured in the same rounds on the same buffer
//! of 16 Mi elements:
//!
//! - in place: a multiplication in place, which reads and writes every element once;
//! - read: the bitwise or of all elements;
//! - two passes: the read, then the multiplication (what a scale for the whole tensor cannot do without);
//! - copy: a multiplication into other memory.
//!
//! `cargo bench -p mantissa-quant --bench scaling -- NUMERICS`, where only what contains the argument in its name is measured, if
//! there is one.

use std::hint::black_box;

use mantissa_formats::{RandomBits, SimdLevel};
use mantissa_quant::{Numerics, Operand, amax, fake_quantize_in_place, fake_quantize_into};
use pulp::{Simd, WithSimd};

use clock::ThreadTime;

#[path = "../../mantissa-formats/benches/clock/mod.rs"]
mod clock;

const SHAPE: [usize; 2] = [1 << 14, 1 << 10];
const ELEMENTS: usize = SHAPE[0] * SHAPE[1];
const ROUNDS: usize = 9;

/// What is timed works on these.
struct Buffers {
    values: Vec<f32>,
    out: Vec<f32>,
}

impl Buffers {
    fn operand(&self) -> Operand<'_> {
        Operand::matrix(&self.values, SHAPE[0], SHAPE[1]).expect("a view of the whole buffer")
    }
}

type Work = Box<dyn Fn(&mut Buffers)>;

/// Places of the limits among what is timed.
const IN_PLACE: usize = 0;
const READ: usize = 1;
const COPY: usize = 2;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a pool of one thread");
    pool.install(run);
}

fn run() {
    println!(
        "{ELEMENTS} elements of N(0, 1) x 1e-3 in rows of {}, on {}: best of {ROUNDS} rounds, medians of their ratios",
        SHAPE[1],
        SimdLevel::best()
    );
    let begin = normal(ELEMENTS);
    let mut buffers = Buffers {
        values: begin.clone(),
        out: vec![0.0; ELEMENTS],
    };
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut work = work();
    work.retain(|(name, ..)| {
        name.starts_with("limit") || only.as_deref().is_none_or(|only| name.contains(only))
    });
    let mut seconds = vec![[0.0; ROUNDS]; work.len()];
    for round in 0..ROUNDS {
        for ((_, _, work), seconds) in work.iter().zip(&mut seconds) {
            buffers.values.copy_from_slice(&begin);
            let start = ThreadTime::now();
            work(black_box(&mut buffers));
            seconds[round] = start.elapsed().as_secs_f64();
        }
    }
    for ((name, limit, _), times) in work.iter().zip(&seconds) {
        let limits: Vec<f64> = (0..ROUNDS)
            .map(|round| limit.iter().map(|&i| seconds[i][round]).sum())
            .collect();
        let mut ratios: Vec<f64> = limits.iter().zip(times).map(|(l, t)| l / t).collect();
        ratios.sort_by(f64::total_cmp);
        let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        let of = match limit[..] {
            [IN_PLACE] => "in place",
            [READ] => "read",
            [COPY] => "copy",
            [READ, IN_PLACE] => "read + in place",
            _ => "read + copy",
        };
        println!(
            "{name:<38} {:>7.3} G elements/s  {:>5.2} best, {:>5.2} median of {of}",
            ELEMENTS as f64 / best(times) / 1e9,
            best(&limits) / best(times),
            ratios[ROUNDS / 2],
        );
    }
}

/// Everything that is timed, with the limits whose sum it is compared to.
fn work() -> Vec<(String, Vec<usize>, Work)> {
    let mut all: Vec<(String, Vec<usize>, Work)> = Vec::new();
    let mut add =
        |name: &str, limit: &[usize], work: Work| all.push((name.to_owned(), limit.to_vec(), work));
    let level = SimdLevel::best();
    add(
        "limit: multiply in place",
        &[IN_PLACE],
        Box::new(move |b| level.dispatch(Multiply(&mut b.values, black_box(1.0)))),
    );
    add(
        "limit: read",
        &[READ],
        Box::new(move |b| {
            black_box(level.dispatch(Read(&b.values)));
        }),
    );
    add(
        "limit: multiply into other memory",
        &[COPY],
        Box::new(move |b| level.dispatch(Copy(&b.values, black_box(1.0), &mut b.out))),
    );
    add(
        "amax",
        &[READ],
        Box::new(|b| {
            black_box(amax(&b.operand()));
        }),
    );
    for (token, in_place, elsewhere) in [
        ("e4m3/tensor", &[READ, IN_PLACE][..], &[READ, COPY][..]),
        ("e5m2/tensor/stochastic", &[READ, IN_PLACE], &[READ, COPY]),
        ("int8/tensor", &[READ, IN_PLACE], &[READ, COPY]),
        ("int8/channel", &[IN_PLACE], &[COPY]),
        ("int8/block32", &[IN_PLACE], &[COPY]),
        ("mxfp8", &[IN_PLACE], &[COPY]),
        ("nvfp4", &[IN_PLACE], &[COPY]),
        ("bf16", &[IN_PLACE], &[COPY]),
        ("fp16", &[IN_PLACE], &[COPY]),
    ] {
        let numerics: Numerics = token.parse().expect("a numerics of the grammar");
        let random = RandomBits::new(1, 2);
        add(
            &format!("{token} in place"),
            in_place,
            Box::new(move |b| {
                fake_quantize_in_place(&mut b.values, SHAPE, &numerics, random);
            }),
        );
        add(
            &format!("{token} into other memory"),
            elsewhere,
            Box::new(move |b| {
                let operand = Operand::matrix(&b.values, SHAPE[0], SHAPE[1]).expect("a view");
                fake_quantize_into(&operand, &numerics, random, &mut b.out);
            }),
        );
    }
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

struct Copy<'a>(&'a [f32], f32, &'a mut [f32]);

impl WithSimd for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, out) in self.0.iter().zip(self.2) {
            *out = *x * self.1;
        }
    }
}

struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        let mut lanes = [0u32; 64];
        for block in self.0.as_chunks::<64>().0 {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane |= x.to_bits();
            }
        }
        lanes.iter().fold(0, |a, b| a | b)
    }
}

/// Normal numbers (Box and Muller 1958) of the size of gradients.
fn normal(len: usize) -> Vec<f32> {
    let mut bits = vec![0; 2 * len];
    RandomBits::new(3, 4).fill(0, &mut bits);
    let uniform = |bits: u32| (f64::from(bits) + 0.5) / (1u64 << 32) as f64;
    bits.chunks_exact(2)
        .map(|pair| {
            let radius = (-2.0 * uniform(pair[0]).ln()).sqrt();
            (1e-3 * radius * (std::f64::consts::TAU * uniform(pair[1])).cos()) as f32
        })
        .collect()
}
