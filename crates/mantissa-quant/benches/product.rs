//! Times of quantized products against the plain f32 product of the same run, and of quantization
//! against a multiplication in place. `cargo bench -p mantissa-quant`.

use std::hint::black_box;
use std::time::Instant;

use mantissa_formats::RandomBits;
use mantissa_quant::{Factor, Numerics, Operand, product, quantize};

const SHAPES: [[usize; 3]; 2] = [[2048, 256, 1024], [4096, 1024, 1024]];
const NUMERICS: [&str; 9] = [
    "int8/tensor",
    "int8/channel",
    "int8/block32",
    "e4m3/tensor",
    "e5m2/tensor",
    "e5m2/tensor/stochastic",
    "bf16",
    "mxfp8",
    "nvfp4",
];

fn main() {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a thread pool");
        pool.install(|| {
            println!("\n{threads} thread(s)");
            SHAPES.iter().for_each(|shape| products(*shape));
            quantizations();
        });
    }
}

/// Values that fall off to both sides, like those of a network.
fn sample(len: usize, seed: u64) -> Vec<f32> {
    let random = RandomBits::new(seed, 0);
    let unit = |i: u64| f64::from(random.at(i)) / f64::from(u32::MAX);
    let value = |i: u64| (unit(3 * i) + unit(3 * i + 1) + unit(3 * i + 2) - 1.5) as f32;
    (0..len as u64).map(value).collect()
}

/// The shortest of a number of runs, each candidate once a round, so that all meet the same weather.
fn fastest(rounds: usize, candidates: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![f64::INFINITY; candidates.len()];
    for _ in 0..rounds {
        for (time, candidate) in times.iter_mut().zip(candidates.iter_mut()) {
            let start = Instant::now();
            candidate();
            *time = time.min(start.elapsed().as_secs_f64());
        }
    }
    times
}

fn products([m, k, n]: [usize; 3]) {
    let (lhs, rhs) = (sample(m * k, 1), sample(k * n, 2));
    let lhs = Operand::matrix(&lhs, m, k).expect("within its data");
    let rhs = Operand::matrix(&rhs, k, n)
        .expect("within its data")
        .transposed();
    let all: Vec<Numerics> = std::iter::once("fp32")
        .chain(NUMERICS)
        .map(|name| name.parse().expect("numerics"))
        .collect();
    let mut runs: Vec<Box<dyn FnMut()>> = Vec::new();
    for numerics in all.clone() {
        let mut out = vec![0.0; m * n];
        runs.push(Box::new(move || {
            let random = RandomBits::new(7, 7);
            product(
                Factor::new(lhs, numerics, random),
                Factor::new(rhs, numerics, random),
                None,
                &mut out,
            );
            black_box(&out);
        }));
    }
    let mut candidates: Vec<&mut dyn FnMut()> =
        runs.iter_mut().map(|run| run.as_mut() as _).collect();
    let times = fastest(8, &mut candidates);
    let gflops = 2e-9 * (m * k * n) as f64 / times[0];
    println!(
        "product {m}x{k}x{n}: fp32 {:.2} ms ({gflops:.0} GFLOP/s)",
        times[0] * 1e3
    );
    for (numerics, time) in all.iter().zip(&times).skip(1) {
        println!(
            "  {:<24} {:>6.2} ms  {:.2} x fp32",
            numerics.to_string(),
            time * 1e3,
            time / times[0]
        );
    }
}

fn quantizations() {
    let [outer, depth] = [2048, 1024];
    let data = sample(outer * depth, 3);
    let mut scaled = data.clone();
    let rows = Operand::matrix(&data, outer, depth).expect("within its data");
    let columns = Operand::matrix(&data, depth, outer)
        .expect("within its data")
        .transposed();
    let mut names = vec!["multiply in place".to_owned()];
    let mut runs: Vec<Box<dyn FnMut() + '_>> = vec![Box::new(move || {
        scaled.iter_mut().for_each(|x| *x *= 1.000_001);
        black_box(&scaled);
    })];
    for name in NUMERICS {
        let numerics: Numerics = name.parse().expect("numerics");
        for (layout, operand) in [("", rows), (" transposed", columns)] {
            names.push(format!("{name}{layout}"));
            runs.push(Box::new(move || {
                black_box(quantize(&operand, &numerics, RandomBits::new(7, 7)));
            }));
        }
    }
    let mut candidates: Vec<&mut dyn FnMut()> =
        runs.iter_mut().map(|run| run.as_mut() as _).collect();
    let times = fastest(10, &mut candidates);
    println!("quantize {outer}x{depth}");
    for (name, time) in names.iter().zip(times) {
        println!(
            "  {name:<36} {:>6.0} M elements/s",
            1e-6 * (outer * depth) as f64 / time
        );
    }
}
