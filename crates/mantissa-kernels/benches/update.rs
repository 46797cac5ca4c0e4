//! Elements a second of optimizer updates on one thread, as a share of limits measured in the same run: sweeps that
//! read and write the same streams and add, which is next to nothing to compute.
//!
//! `cargo bench -p mantissa-kernels --bench update`

use std::hint::black_box;
use std::time::Instant;

use mantissa_kernels::optimizer::{Adam, Momentum, Sgd, WeightDecay};
use mantissa_kernels::reduce::scan;
use pulp::{Simd, WithSimd};

/// Parameters: larger than any cache.
const SIZE: usize = 1 << 24;
/// Rounds, in each of which everything is timed once; the shares are of medians.
const ROUNDS: usize = 15;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread can be started").install(measure);
}

fn measure() {
    let gradients: Vec<f32> = (0..SIZE)
        .map(|i| ((i * 2_654_435_761) % 2_000_003) as f32 * 1e-6 - 1.0)
        .collect();
    let mut streams = [0.5, 0.0, 0.0].map(|value| vec![value; SIZE]);
    let [parameters, first, second] = &mut streams;

    let adam = |decay| Adam::new([0.9, 0.999], 1e-8, decay, 1e-3, 10);
    let (decoupled, l2) = (
        adam(WeightDecay::Decoupled(0.01)),
        adam(WeightDecay::L2(0.01)),
    );
    let momentum = |nesterov| {
        Some(Momentum {
            momentum: 0.9,
            dampening: 0.0,
            nesterov,
        })
    };
    let sgd = |momentum| Sgd::new(0.01, momentum, 1e-3, 10);
    let (plain, heavy, nesterov) = (sgd(None), sgd(momentum(false)), sgd(momentum(true)));

    let mut cases: [(&str, Vec<f64>); 10] = [
        ("limit: read 1 stream", vec![]),
        ("scan", vec![]),
        ("limit: read 4, write 3", vec![]),
        ("AdamW", vec![]),
        ("Adam with L2", vec![]),
        ("limit: read 3, write 2", vec![]),
        ("SGD with momentum", vec![]),
        ("SGD with Nesterov momentum", vec![]),
        ("limit: read 2, write 1", vec![]),
        ("SGD", vec![]),
    ];
    for _ in 0..ROUNDS {
        for (case, (_, seconds)) in cases.iter_mut().enumerate() {
            let begin = Instant::now();
            match case {
                0 => pulp::Arch::new().dispatch(Read(black_box(&gradients))),
                1 => drop(black_box(scan(black_box(&gradients)))),
                2 => sweep(&gradients, [&mut *parameters, first, second]),
                3 => decoupled.update(0.5, &gradients, parameters, first, second),
                4 => l2.update(0.5, &gradients, parameters, first, second),
                5 => sweep(&gradients, [&mut *parameters, first]),
                6 => heavy.update(0.5, &gradients, parameters, first),
                7 => nesterov.update(0.5, &gradients, parameters, first),
                8 => sweep(&gradients, [&mut *parameters]),
                _ => plain.update(0.5, &gradients, parameters, &mut []),
            }
            seconds.push(begin.elapsed().as_secs_f64());
        }
        // The moments of Adam and the velocity of SGD share a stream; their values must stay ordinary.
        for stream in [&mut *parameters, first, second] {
            stream.fill(0.5);
        }
    }

    println!(
        "\n16 Mi parameters, from memory\n{:<28} {:>10}  share of limit",
        "", "Gelem/s"
    );
    let mut limit = 0.0;
    for (name, mut seconds) in cases {
        seconds.sort_by(f64::total_cmp);
        let rate = SIZE as f64 / seconds[ROUNDS / 2];
        if name.starts_with("limit") {
            limit = rate;
        }
        println!("{name:<28} {:>10.3}  {:>5.2}", rate / 1e9, rate / limit);
    }
}

/// Adds every element once.
struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut sums = [0.0; 64];
        for block in self.0.as_chunks::<64>().0 {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += x;
            }
        }
        black_box(sums);
    }
}

/// Adds `source` to every one of `targets`, element by element.
struct Sweep<'a, const N: usize>(&'a [f32], [&'a mut [f32]; N]);

impl<const N: usize> WithSimd for Sweep<'_, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self(source, targets) = self;
        let mut targets = targets.map(|target| target.as_chunks_mut::<64>().0.iter_mut());
        for block in source.as_chunks::<64>().0 {
            for target in &mut targets {
                let target = target.next().expect("targets are as long as the source");
                for (x, addend) in target.iter_mut().zip(block) {
                    *x += addend;
                }
            }
        }
    }
}

#[inline(never)]
fn sweep<const N: usize>(source: &[f32], targets: [&mut Vec<f32>; N]) {
    let targets = targets.map(|target| &mut target[..]);
    pulp::Arch::new().dispatch(Sweep(black_box(source), black_box(targets)));
}
