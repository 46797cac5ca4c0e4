//! Speed of the one-pass statistics as a multiple of the time that reading the same buffer takes.
//!
//! `cargo bench -p mantissa-metrics`

use std::hint::black_box;
use std::time::Instant;

use mantissa_formats::RandomBits;
use mantissa_metrics::{
    ExactProduct, ExponentHistogram, Moments, fit_student_t, quantization_error, sample,
};
use mantissa_quant::{Numerics, Operand};

/// 64 MiB of f32: beyond the last-level cache share of a core.
const ELEMENTS: usize = 1 << 24;
const REPEATS: usize = 15;

fn main() {
    let values = sample::student_t(5.0, RandomBits::new(1, 0), ELEMENTS);
    println!("{ELEMENTS} elements, best of {REPEATS}");
    let read = seconds(|| plain_read(&values));
    report("plain read", read, read);
    report("moments with amax", seconds(|| Moments::of(&values)), read);
    report(
        "exponent histogram",
        seconds(|| ExponentHistogram::of(&values)),
        read,
    );
    // Both in one pass over memory: the second finds its chunk in the cache.
    let both = seconds(|| {
        let (mut moments, mut histogram) = (Moments::default(), ExponentHistogram::default());
        for chunk in values.chunks(8192) {
            moments.push(chunk);
            histogram.push(chunk);
        }
        (moments, histogram)
    });
    report("moments + histogram", both, read);
    for token in ["int8/tensor", "e4m3/block32"] {
        let numerics: Numerics = token.parse().expect("a numerics of the grammar");
        let operand =
            Operand::matrix(&values, ELEMENTS / 1024, 1024).expect("a view of the whole buffer");
        let time = seconds(|| quantization_error(&operand, &numerics, RandomBits::NONE));
        report(&format!("error {token}"), time, read);
    }
    let fit = seconds(|| fit_student_t(&values));
    println!(
        "{:<24} {:>8.2} ms, whatever the size",
        "Student-t fit",
        1e3 * fit
    );
    let operand =
        Operand::matrix(&values[..512 * 512], 512, 512).expect("a view of a part of the buffer");
    let product = seconds(|| ExactProduct::new(&operand, &operand).errors_of(&[0.0; 512 * 512]));
    println!(
        "{:<24} {:>8.2} G products/s",
        "exact product",
        512f64.powi(3) / product / 1e9
    );
}

fn report(name: &str, seconds: f64, read: f64) {
    println!(
        "{name:<24} {:>8.2} G elements/s  {:>6.2} x plain read",
        ELEMENTS as f64 / seconds / 1e9,
        seconds / read
    );
}

/// Best time of a few calls.
fn seconds<T>(mut work: impl FnMut() -> T) -> f64 {
    let once = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(once).fold(f64::INFINITY, f64::min)
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
