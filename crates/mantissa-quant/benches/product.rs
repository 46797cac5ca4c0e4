//! Times of quantized products against the f32 product of the `gemm` crate in the same run, with the
//! limits they are to stay within, and of quantization against a multiplication in place.
//! `cargo bench -p mantissa-quant --bench product -- SHAPE NUMERICS`, where only the shapes and the numerics are measured whose
//! names contain the arguments, if there are any.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use gemm::Parallelism;
use mantissa_formats::RandomBits;
use mantissa_quant::{Factor, Numerics, Operand, encode, product, quantize};

/// Rows, depth and columns.
const SHAPES: [[usize; 3]; 2] = [[2048, 256, 1024], [4096, 1024, 1024]];
/// What is measured of each shape, with the most that it should take of `gemm`'s time.
const NUMERICS: [(&str, f64); 10] = [
    ("fp32", 1.0),
    ("int8/tensor", 1.0 / 2.6),
    ("int8/channel", 1.0 / 2.6),
    ("int8/block32", 1.3),
    ("e4m3/tensor", 1.12),
    ("e5m2/tensor", 1.12),
    ("e5m2/tensor/stochastic", 1.12),
    ("bf16", 1.12),
    ("mxfp8", 1.3),
    ("nvfp4", f64::NAN),
];
/// Measured as codes too.
const ENCODED: [&str; 2] = ["int8/tensor", "e4m3/tensor"];

/// How a product's operands lie in memory: N as rows and columns say, T transposed.
#[derive(Copy, Clone, PartialEq)]
struct Layout {
    name: &'static str,
    left_transposed: bool,
    right_transposed: bool,
}

const LAYOUTS: [Layout; 3] = [
    Layout {
        name: "NN",
        left_transposed: false,
        right_transposed: false,
    },
    Layout {
        name: "NT",
        left_transposed: false,
        right_transposed: true,
    },
    Layout {
        name: "TN",
        left_transposed: true,
        right_transposed: false,
    },
];

fn main() {
    let mut only = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let (shape, numerics) = (
        only.next().unwrap_or_default(),
        only.next().unwrap_or_default(),
    );
    let wanted = |line: &str| line.contains(&shape);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a thread pool");
        pool.install(|| {
            println!("\n{threads} thread(s)");
            for [m, k, n] in SHAPES {
                for layout in LAYOUTS {
                    let line = format!("{m}x{k}x{n} {}", layout.name);
                    if wanted(&line) {
                        products((&line, &numerics), 1, [m, k, n], layout, threads);
                    }
                }
            }
            for [m, k, n] in [[128, 64, 128], [128, 128, 64]] {
                for layout in LAYOUTS {
                    let line = format!("64 of {m}x{k}x{n} {}", layout.name);
                    if wanted(&line) {
                        products((&line, &numerics), 64, [m, k, n], layout, threads);
                    }
                }
            }
            if wanted("quantize") {
                quantizations(threads);
            }
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

/// Seconds: of this thread's processor time where it is the only one, so that other programs do not
/// count; of the wall else.
fn now(threads: usize) -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    match threads {
        #[cfg(unix)]
        1 => {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
        }
        _ => START.elapsed().as_secs_f64(),
    }
}

/// Seconds that are spent on the candidates of one line.
const BUDGET: f64 = 2.5;

/// The shortest of a number of runs, each candidate once a round, so that all meet the same weather.
fn fastest(threads: usize, candidates: &mut [Box<dyn FnMut() + '_>]) -> Vec<f64> {
    let mut times = vec![f64::INFINITY; candidates.len()];
    let (begin, mut rounds) = (now(threads), 0);
    while rounds < 5 || now(threads) - begin < BUDGET {
        for (time, candidate) in times.iter_mut().zip(candidates.iter_mut()) {
            let start = now(threads);
            candidate();
            *time = time.min(now(threads) - start);
        }
        rounds += 1;
    }
    times
}

/// `gemm` on strides of rows and columns, as `Operand` has them.
fn plain(lhs: &Operand, rhs: &Operand, matrix: usize, out: &mut [f32], parallelism: Parallelism) {
    assert!(lhs.check().is_ok() && rhs.check().is_ok() && lhs.depth == rhs.depth);
    assert_eq!(out.len(), lhs.outer * rhs.outer);
    // SAFETY: the operands lie inside their data, the result is row-major and as long as it must be.
    unsafe {
        gemm::gemm(
            lhs.outer,
            rhs.outer,
            lhs.depth,
            out.as_mut_ptr(),
            1,
            rhs.outer as isize,
            false,
            lhs.data[lhs.offsets[matrix]..].as_ptr(),
            lhs.depth_stride as isize,
            lhs.outer_stride as isize,
            rhs.data[rhs.offsets[matrix]..].as_ptr(),
            rhs.outer_stride as isize,
            rhs.depth_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn products(
    (line, only): (&str, &str),
    batch: usize,
    [m, k, n]: [usize; 3],
    layout: Layout,
    threads: usize,
) {
    let (left, right) = (sample(batch * m * k, 1), sample(batch * k * n, 2));
    let lefts: Vec<usize> = (0..batch).map(|i| i * m * k).collect();
    let rights: Vec<usize> = (0..batch).map(|i| i * k * n).collect();
    let lhs = match layout.left_transposed {
        false => Operand::new(&left, &lefts, [m, k], [k, 1]),
        true => Operand::new(&left, &lefts, [m, k], [1, m]),
    };
    let rhs = match layout.right_transposed {
        false => Operand::new(&right, &rights, [n, k], [1, n]),
        true => Operand::new(&right, &rights, [n, k], [k, 1]),
    };
    let (lhs, rhs) = (lhs.expect("within its data"), rhs.expect("within its data"));
    // One result for all, so that none finds a colder one than another.
    let result = RefCell::new(vec![0.0; batch * m * n]);
    let result = &result;
    let mut lines = Vec::new();
    let mut runs: Vec<Box<dyn FnMut() + '_>> = vec![Box::new(|| {
        if batch == 1 {
            plain(
                &lhs,
                &rhs,
                0,
                &mut result.borrow_mut(),
                Parallelism::Rayon(0),
            );
        } else {
            use rayon::prelude::*;
            let mut out = result.borrow_mut();
            let matrices = out.par_chunks_mut(m * n).enumerate();
            matrices.for_each(|(i, out)| plain(&lhs, &rhs, i, out, Parallelism::None));
        }
        black_box(&result);
    })];
    let random = RandomBits::new(7, 7);
    for (name, limit) in NUMERICS.into_iter().filter(|(name, _)| name.contains(only)) {
        let numerics: Numerics = name.parse().expect("numerics");
        // Small matrices are read about as long as they are multiplied, so only f32 is held to a limit.
        let limit = if batch == 1 || name == "fp32" {
            limit
        } else {
            f64::NAN
        };
        lines.push((name.to_owned(), limit));
        runs.push(Box::new(move || {
            let (lhs, rhs) = (
                Factor::new(lhs, numerics, random),
                Factor::new(rhs, numerics, random),
            );
            product(lhs, rhs, None, &mut result.borrow_mut());
            black_box(&result);
        }));
    }
    for name in ENCODED
        .into_iter()
        .filter(|name| format!("{name}, codes").contains(only))
    {
        let numerics: Numerics = name.parse().expect("numerics");
        lines.push((format!("{name}, codes"), f64::NAN));
        // Codes lie as the values do, so that the layout is measured too.
        let encoded = |operand: &Operand, transposed: bool| match transposed {
            false => encode(operand, &numerics, random).expect("8 bits"),
            true => encode(&operand.transposed(), &numerics, random).expect("8 bits"),
        };
        let left = encoded(&lhs, layout.left_transposed);
        let right = encoded(&rhs, !layout.right_transposed);
        runs.push(Box::new(move || {
            let lhs = match layout.left_transposed {
                false => left.factor(),
                true => left.transposed(),
            };
            let rhs = match layout.right_transposed {
                true => right.factor(),
                false => right.transposed(),
            };
            product(lhs, rhs, None, &mut result.borrow_mut());
            black_box(&result);
        }));
    }
    let times = fastest(threads, &mut runs);
    let gops = |time: f64| 2e-9 * (batch * m * k * n) as f64 / time;
    println!(
        "{line}: gemm {:.2} ms, {:.0} GFLOP/s on {threads}",
        times[0] * 1e3,
        gops(times[0])
    );
    for ((name, limit), time) in lines.iter().zip(&times[1..]) {
        let ratio = time / times[0];
        let verdict = match ratio <= *limit {
            _ if limit.is_nan() => String::new(),
            true => format!("limit {limit:.2}"),
            false => format!("limit {limit:.2} MISSED"),
        };
        println!(
            "  {name:<24} {:>7.2} ms {:>5.0} GOP/s  {ratio:.2} x gemm  {verdict}",
            time * 1e3,
            gops(*time)
        );
    }
}

fn quantizations(threads: usize) {
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
    for (name, _) in &NUMERICS[1..] {
        let numerics: Numerics = name.parse().expect("numerics");
        for (layout, operand) in [("", rows), (" transposed", columns)] {
            names.push(format!("{name}{layout}"));
            runs.push(Box::new(move || {
                black_box(quantize(&operand, &numerics, RandomBits::new(7, 7)));
            }));
        }
    }
    let times = fastest(threads, &mut runs);
    println!("quantize {outer}x{depth}");
    for (name, time) in names.iter().zip(times) {
        println!(
            "  {name:<36} {:>6.0} M elements/s",
            1e-6 * (outer * depth) as f64 / time
        );
    }
}
