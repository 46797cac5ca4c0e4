//! Speed of the one-pass statistics as a share of the speed of reading the same buffer, measured in turn with each of them.
//!
//! `cargo bench -p mantissa-metrics`, or with `-- pass` for nothing but the passes over a tensor.

use std::hint::black_box;

use mantissa_formats::RandomBits;
use mantissa_metrics::{
    ExactProduct, ExponentHistogram, GroupSpreads, MagnitudeSketch, Moments, TensorStatistics,
    estimate_nu, fit_distributions, fit_student_t, quantization_error, sample,
};
use mantissa_quant::{Numerics, Operand};

use clock::ThreadTime;

#[path = "../../mantissa-formats/benches/clock/mod.rs"]
mod clock;

/// 64 MiB of f32: beyond the last-level cache share of a core.
const ELEMENTS: usize = 1 << 24;
const REPEATS: usize = 11;

fn main() {
    let values = sample::student_t(5.0, RandomBits::new(1, 0), ELEMENTS);
    // Exponents far apart in every part of the buffer.
    let spread: Vec<f32> = values.iter().map(|x| (40.0 * x.sin()).exp()).collect();
    let half_zero: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
    println!("{ELEMENTS} elements, best of {REPEATS}");
    report("plain read", &values, || plain_read(&values));
    report("moments with amax", &values, || Moments::of(&values));
    report("exponent histogram", &values, || {
        ExponentHistogram::of(&values)
    });
    report("both in one pass", &values, || {
        TensorStatistics::of(&values)
    });
    report("both, half zeros", &values, || {
        TensorStatistics::of(&half_zero)
    });
    report("both, exponents spread", &values, || {
        TensorStatistics::of(&spread)
    });
    report("magnitude sketch", &values, || MagnitudeSketch::of(&values));
    report("sketch, exponents spread", &values, || {
        MagnitudeSketch::of(&spread)
    });
    let moments = Moments::of(&values);
    let (amax, rms) = (moments.amax, moments.rms().unwrap_or(0.0));
    report("channels and blocks", &values, || {
        GroupSpreads::of(&values, 1024, amax, rms)
    });
    if std::env::args().skip(1).any(|arg| arg == "pass") {
        return;
    }
    for token in ["int8/tensor", "e4m3/block32"] {
        let numerics: Numerics = token.parse().expect("a numerics of the grammar");
        let operand =
            Operand::matrix(&values, ELEMENTS / 1024, 1024).expect("a view of the whole buffer");
        report(&format!("error {token}"), &values, || {
            quantization_error(&operand, &numerics, RandomBits::NONE)
        });
    }
    let best = |mut work: Box<dyn FnMut() + '_>| {
        (0..REPEATS).fold(f64::INFINITY, |best, _| best.min(seconds(&mut work)))
    };
    type Fit<'a> = (&'a str, Box<dyn FnMut() + 'a>);
    let fits: [Fit; 3] = [
        (
            "Student-t fit",
            Box::new(|| {
                black_box(fit_student_t(&values));
            }),
        ),
        (
            "nu from 1024",
            Box::new(|| {
                black_box(estimate_nu(&values, 1024));
            }),
        ),
        (
            "four fits, interval",
            Box::new(|| {
                black_box(fit_distributions(&values[..1 << 14], 0.95));
            }),
        ),
    ];
    for (name, fit) in fits {
        println!("{name:<24} {:>8.2} ms, whatever the size", 1e3 * best(fit));
    }
    let operand =
        Operand::matrix(&values[..512 * 512], 512, 512).expect("a view of a part of the buffer");
    let product = best(Box::new(|| {
        black_box(ExactProduct::new(&operand, &operand).errors_of(&[0.0; 512 * 512]));
    }));
    println!(
        "{:<24} {:>8.2} G products/s",
        "exact product",
        512f64.powi(3) / product / 1e9
    );
}

/// Measures in turn with the plain read: best times, and the median of the ratios.
fn report<T>(name: &str, values: &[f32], mut work: impl FnMut() -> T) {
    let (mut best, mut best_read) = (f64::INFINITY, f64::INFINITY);
    let mut ratios = [0.0; REPEATS];
    for ratio in &mut ratios {
        let read = seconds(|| plain_read(values));
        let time = seconds(&mut work);
        (best, best_read) = (best.min(time), best_read.min(read));
        *ratio = read / time;
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{name:<24} {:>8.2} G elements/s  {:>6.2} best, {:>5.2} median of the speed of a plain read",
        ELEMENTS as f64 / best / 1e9,
        best_read / best,
        ratios[REPEATS / 2]
    );
}

/// Time of one call.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let start = ThreadTime::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

/// The cheapest pass that looks at every element: the bitwise or of all of them.
fn plain_read(values: &[f32]) -> u32 {
    struct Read<'a>(&'a [f32]);
    impl pulp::WithSimd for Read<'_> {
        type Output = u32;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> u32 {
            let mut lanes = [0u32; 64];
            for block in self.0.as_chunks::<64>().0 {
                for (lane, x) in lanes.iter_mut().zip(block) {
                    *lane |= x.to_bits();
                }
            }
            lanes.iter().fold(0, |a, b| a | b)
        }
    }
    pulp::Arch::new().dispatch(Read(values))
}
