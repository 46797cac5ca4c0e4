//! Elements a second of optimizer updates on one thread, as a share of limits measured in the same run: sweeps that
//! read and write the same streams and add, which is next to nothing to compute.
//!
//! `cargo bench -p mantissa-kernels --bench update -- FORMAT`, where only AdamW is measured if there is an argument, with moments in
//! f32 and in the formats that contain it in their names.

use std::hint::black_box;

use mantissa_formats::RandomBits;
use mantissa_kernels::optimizer::{Adam, Momentum, Sgd, WeightDecay};
use mantissa_kernels::reduce::scan;
use mantissa_kernels::state::{Moment, StateBuffer, StateFormat};
use pulp::{Simd, WithSimd};

use clock::ThreadTime;

#[path = "../../mantissa-formats/benches/clock/mod.rs"]
mod clock;

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
    if let Some(only) = std::env::args().skip(1).find(|arg| !arg.starts_with('-')) {
        return measure_states(&gradients, &only);
    }
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
            let begin = ThreadTime::now();
            match case {
                0 => pulp::Arch::new().dispatch(Read(black_box(&gradients))),
                1 => drop(black_box(scan(black_box(&gradients)))),
                2 => sweep(&gradients, [&mut *parameters, first, second]),
                3 => decoupled.update(0.5, &gradients, parameters, [first.into(), second.into()]),
                4 => l2.update(0.5, &gradients, parameters, [first.into(), second.into()]),
                5 => sweep(&gradients, [&mut *parameters, first]),
                6 => heavy.update(0.5, &gradients, parameters, first.into()),
                7 => nesterov.update(0.5, &gradients, parameters, first.into()),
                8 => sweep(&gradients, [&mut *parameters]),
                _ => plain.update(0.5, &gradients, parameters, (&mut [][..]).into()),
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
    drop(streams);
    measure_states(&gradients, "");
}

/// AdamW with its moments in every published format.
fn measure_states(gradients: &[f32], only: &str) {
    println!(
        "\nAdamW, 16 Mi parameters, by the format of both moments\n{:<28} {:>10}  {:>8}  share of limit  time over fp32's",
        "", "Gelem/s", "B/param"
    );
    let gradients = &gradients[..SIZE];
    let adam = Adam::new([0.9, 0.999], 1e-8, WeightDecay::Decoupled(0.01), 1e-3, 10);
    let mut parameters = vec![0.5; SIZE];
    let mut of_f32 = None;
    let published = StateFormat::PUBLISHED.iter().map(|(text, _)| *text);
    for text in published.filter(|text| *text == "fp32" || text.contains(only)) {
        let format: StateFormat = text.parse().expect("a published format");
        let magnitudes: Vec<f32> = gradients.iter().map(|x| 0.1 * x).collect();
        let squares: Vec<f32> = magnitudes.iter().map(|x| x * x).collect();
        let mut first = StateBuffer::from_f32(format, Moment::First, &magnitudes);
        let mut second = StateBuffer::from_f32(format, Moment::Second, &squares);
        drop((magnitudes, squares));
        let mut codes = [0; 2].map(|_| vec![0; format.bytes(SIZE)]);
        let mut seconds = [vec![], vec![]];
        for _ in 0..ROUNDS {
            let begin = ThreadTime::now();
            let [left, right] = &mut codes;
            pulp::Arch::new().dispatch(SweepCodes {
                gradients: black_box(gradients),
                parameters: black_box(&mut parameters),
                codes: [left, right],
            });
            seconds[0].push(begin.elapsed().as_secs_f64());
            let begin = ThreadTime::now();
            let moments = [first.view(RandomBits::NONE), second.view(RandomBits::NONE)];
            adam.update(0.5, gradients, &mut parameters, moments);
            seconds[1].push(begin.elapsed().as_secs_f64());
            parameters.fill(0.5);
        }
        let [limit, time] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[ROUNDS / 2]
        });
        let of_f32 = *of_f32.get_or_insert(time);
        println!(
            "{text:<28} {:>10.3}  {:>8.3}  {:>14.2}  {:>16.2}",
            SIZE as f64 / time / 1e9,
            2.0 * format.bytes(SIZE) as f64 / SIZE as f64,
            limit / time,
            time / of_f32
        );
    }
}

/// Reads and writes what an update does, and adds.
struct SweepCodes<'a> {
    gradients: &'a [f32],
    parameters: &'a mut [f32],
    codes: [&'a mut [u8]; 2],
}

impl WithSimd for SweepCodes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const PIECE: usize = 1024;
        let pieces = self.gradients.len() / PIECE;
        let [left, right] = self.codes.map(|codes| {
            let size = codes.len().div_ceil(pieces);
            codes.chunks_mut(size)
        });
        let numbers = self
            .gradients
            .chunks(PIECE)
            .zip(self.parameters.chunks_mut(PIECE));
        for (((gradients, parameters), left), right) in numbers.zip(left).zip(right) {
            for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
                *parameter += gradient;
            }
            for codes in [left, right] {
                for code in codes {
                    *code = code.wrapping_add(1);
                }
            }
        }
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
