//! Moments in few bits: how near updates stay to f32's, what never happens to them, and what must not change their bits.

use mantissa_formats::RandomBits;
use mantissa_kernels::optimizer::{Adam, WeightDecay};
use mantissa_kernels::state::{Moment, StateBuffer, StateFormat};

fn format(text: &str) -> StateFormat {
    text.parse().unwrap()
}

fn published() -> impl Iterator<Item = StateFormat> {
    StateFormat::PUBLISHED.iter().map(|(text, _)| format(text))
}

fn uniform(stream: u64, len: usize) -> Vec<f32> {
    let mut bits = vec![0; len];
    RandomBits::new(11, stream).fill(0, &mut bits);
    bits.into_iter()
        .map(|bits| bits as i32 as f32 / (1u64 << 31) as f32)
        .collect()
}

/// A tensor under AdamW, with both moments in a format.
struct Run {
    parameters: Vec<f32>,
    moments: [StateBuffer; 2],
    steps: u64,
}

impl Run {
    fn new(format: StateFormat, parameters: Vec<f32>) -> Self {
        let moments = [Moment::First, Moment::Second]
            .map(|moment| StateBuffer::zeros(format, moment, parameters.len()));
        Self {
            parameters,
            moments,
            steps: 0,
        }
    }

    fn step(&mut self, learning_rate: f64, gradients: &[f32]) {
        self.steps += 1;
        let mut stream = 2 * self.steps;
        let views = self.moments.each_mut().map(|moment| {
            stream += 1;
            moment.view(RandomBits::new(5, stream))
        });
        Adam::new(
            [0.9, 0.999],
            1e-8,
            WeightDecay::Decoupled(0.0),
            learning_rate,
            self.steps,
        )
        .update(1.0, gradients, &mut self.parameters, views);
    }

    fn bits(&self) -> Vec<u32> {
        let moments = self.moments.each_ref().map(StateBuffer::to_f32);
        let all = moments.iter().flatten().chain(&self.parameters);
        all.map(|x| x.to_bits()).collect()
    }
}

/// Noisy descent into a valley whose curvature spans four decades, in patches of so many parameters, and the mean square of the
/// parameters in the last quarter.
fn valley(format: StateFormat, patch: usize) -> (f64, Vec<f32>) {
    const LEN: usize = 5120 + 300;
    const STEPS: u64 = 400;
    let curvature = |i: usize| 10f32.powi(-((i / patch % 5) as i32));
    let mut run = Run::new(format, uniform(0, LEN));
    let mut loss = 0.0;
    for step in 0..STEPS {
        let mut gradients = uniform(step + 1, LEN);
        for (i, gradient) in gradients.iter_mut().enumerate() {
            let (k, x) = (curvature(i), run.parameters[i]);
            *gradient = k * (x + 0.3 * *gradient);
            if step >= STEPS * 3 / 4 {
                loss += f64::from(x) * f64::from(x);
            }
        }
        run.step(1e-2, &gradients);
    }
    (loss / (LEN as f64 * STEPS as f64 / 4.0), run.parameters)
}

fn distance(left: &[f32], right: &[f32]) -> f64 {
    let squares = left
        .iter()
        .zip(right)
        .map(|(l, r)| f64::from(l - r).powi(2));
    (squares.sum::<f64>() / left.len() as f64).sqrt()
}

#[test]
fn descents_stay_near_that_of_f32() {
    // How far parameters may be from those of f32 in the end, which came 0.58 of the way in root mean square: where the elements
    // of a block are alike, and where they span four decades.
    for (text, alike, unlike) in [
        ("bf16", 0.001, 0.001),
        ("bf16/stochastic", 0.001, 0.001),
        ("fp16/tensor", 0.001, 0.001),
        ("e4m3/block256", 0.02, 0.25),
        ("e4m3/block128/expanded", 0.005, 0.02),
        ("e5m2/block128/expanded", 0.005, 0.02),
        ("dynamic8", 0.015, 0.1),
        ("dynamic4", 0.02, 0.5),
    ] {
        for (patch, tolerance) in [(512, alike), (32, unlike)] {
            let (loss, end) = valley(StateFormat::FP32, patch);
            assert!(loss < 0.001, "f32 itself arrives: {loss}");
            let (state_loss, state_end) = valley(format(text), patch);
            let distance = distance(&state_end, &end);
            println!(
                "{text:<24} {patch:>4} loss {state_loss:.5} against {loss:.5}, distance {distance:.5}"
            );
            assert!(distance < tolerance, "{text} ends {distance} away");
            assert!(distance > 0.0, "{text} is not f32");
        }
    }
}

#[test]
fn a_buffer_of_f32_has_the_bits_of_a_slice() {
    let len = 70_000;
    let mut run = Run::new(StateFormat::FP32, uniform(0, len));
    let mut parameters = run.parameters.clone();
    let mut moments = [vec![0.0; len], vec![0.0; len]];
    for step in 1..=3 {
        let gradients = uniform(step, len);
        run.step(1e-2, &gradients);
        let views = moments.each_mut().map(|moment| moment.into());
        Adam::new([0.9, 0.999], 1e-8, WeightDecay::Decoupled(0.0), 1e-2, step).update(
            1.0,
            &gradients,
            &mut parameters,
            views,
        );
    }
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        run.bits(),
        [bits(&moments[0]), bits(&moments[1]), bits(&parameters)].concat()
    );
}

#[test]
fn thread_counts_agree_bit_for_bit() {
    // Several tasks, the last of them short and no whole number of blocks or bytes.
    let len = 3 * 32768 + 77;
    let formats = published().chain([
        format("e4m3/block128/expanded/stochastic"),
        format("bf16/stochastic"),
    ]);
    for format in formats {
        let on = |threads, len| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut run = Run::new(format, uniform(0, len));
                for step in 1..=3 {
                    run.step(1e-2, &uniform(step, len));
                }
                run
            })
        };
        let one = on(1, len);
        assert_eq!(on(2, len).bits(), one.bits(), "{format}");
        assert_eq!(on(3, len).bits(), one.bits(), "{format}");
        // Tasks agree with what a tensor too small to be split gives, unless all elements share a scale.
        if !format.to_string().contains("tensor") {
            let small = on(1, 2048);
            assert_eq!(small.parameters, one.parameters[..2048], "{format}");
        }
    }
}

#[test]
fn gradients_of_zero_move_nothing() {
    for format in published() {
        let start = uniform(0, 300);
        let mut run = Run::new(format, start.clone());
        for _ in 0..3 {
            run.step(1e-2, &[0.0; 300]);
        }
        assert_eq!(run.parameters, start, "{format}");
        for moment in &run.moments {
            assert_eq!(moment.to_f32(), [0.0; 300], "{format}");
        }
        // Zeros beside others are no trouble either: blocks of both, and whole blocks of zeros.
        let mixed: Vec<f32> = (0..300)
            .map(|i| if i % 3 == 0 && i < 150 { 0.5 } else { 0.0 })
            .collect();
        for _ in 0..50 {
            run.step(1e-2, &mixed);
        }
        for (i, (after, before)) in run.parameters.iter().zip(&start).enumerate() {
            assert!(after.is_finite(), "{format}: element {i} is {after}");
            let moved = mixed[i] != 0.0;
            assert_eq!(
                after != before,
                moved,
                "{format}: element {i}, {before} to {after}"
            );
        }
    }
}

#[test]
fn a_second_moment_is_never_zero_where_the_first_is_not() {
    let formats = published().chain(["e2m1/block32", "int8/block64", "fp16/block64"].map(format));
    for format in formats {
        // Magnitudes from 1 to 10^-13 beside each other, whose squares are f32 numbers still.
        let gradients: Vec<f32> = (0..1500)
            .map(|i| uniform(7, 1500)[i] * 10f32.powi(-(i as i32 % 14)))
            .collect();
        for scale in [1.0, 1e-3, 1e15] {
            let gradients: Vec<f32> = gradients.iter().map(|g| g * scale).collect();
            let mut run = Run::new(format, vec![0.0; 1500]);
            let mut checked = 0;
            for _ in 0..5 {
                run.step(1e-2, &gradients);
                let [first, second] = run.moments.each_ref().map(StateBuffer::to_f32);
                for (i, (first, second)) in first.iter().zip(second).enumerate() {
                    if *first != 0.0 {
                        checked += 1;
                        assert!(
                            second > 0.0,
                            "{format}, scale {scale}: element {i} has {first} and {second}"
                        );
                    }
                }
            }
            assert!(checked > 100, "{format}: {checked}");
            // So no quotient explodes: a step of Adam moves a parameter by about the learning rate.
            let most = run
                .parameters
                .iter()
                .fold(0.0, |most: f32, x| most.max(x.abs()));
            assert!(most < 0.5, "{format}, scale {scale}: moved by {most}");
        }
    }
}

#[test]
fn huge_and_tiny_gradients_leave_everything_finite() {
    for format in published() {
        for magnitude in [1e-44, 1e-30, 1e-20, 1e19, 1e30, 3e38] {
            let gradients: Vec<f32> = uniform(1, 600).iter().map(|x| x * magnitude).collect();
            let mut run = Run::new(format, uniform(0, 600));
            for _ in 0..3 {
                run.step(1e-2, &gradients);
            }
            assert!(
                run.parameters.iter().all(|x| x.is_finite()),
                "{format}, {magnitude}"
            );
            let [first, second] = run.moments.each_ref().map(StateBuffer::to_f32);
            assert!(first.iter().all(|x| x.is_finite()), "{format}, {magnitude}");
            // The squares overflow f32 itself; with a scale, or in 16 bits, they saturate.
            if format != StateFormat::FP32 {
                assert!(
                    second.iter().all(|x| x.is_finite()),
                    "{format}, {magnitude}"
                );
            }
            for scale in run.moments.iter().flat_map(StateBuffer::scales) {
                assert!(scale.is_finite() && *scale >= 0.0, "{format}: {scale}");
            }
            // Training goes on: what saturated decays, and ordinary gradients move parameters again.
            let ordinary = uniform(2, 600);
            for _ in 0..3 {
                run.step(1e-2, &ordinary);
            }
            assert!(
                run.parameters.iter().all(|x| x.is_finite()),
                "{format}, {magnitude}"
            );
        }
    }
}

/// The largest error of a moment relative to its values, for values whose magnitudes spread over `octaves`.
fn relative_error(text: &str, moment: Moment, octaves: f32) -> f32 {
    let values: Vec<f32> = uniform(3, 4096)
        .iter()
        .zip(uniform(4, 4096))
        .map(|(sign, size)| {
            let magnitude = 1e-5 * (octaves * (0.5 * size - 0.5)).exp2();
            match moment {
                Moment::First => magnitude.copysign(*sign),
                Moment::Second => magnitude,
            }
        })
        .collect();
    let buffer = StateBuffer::from_f32(format(text), moment, &values);
    let errors = buffer
        .to_f32()
        .into_iter()
        .zip(values)
        .map(|(coded, x)| (coded / x - 1.0).abs());
    let worst = errors.fold(0.0, f32::max);
    println!("{text} {moment:?} over {octaves} octaves: {worst}");
    worst
}

#[test]
fn formats_are_as_precise_as_they_are_meant_to_be() {
    for moment in [Moment::First, Moment::Second] {
        // Half a step of the format's mantissa.
        assert!(relative_error("bf16", moment, 8.0) < 0.0040);
        assert!(relative_error("fp16/tensor", moment, 8.0) < 0.000_49);
        assert!((0.04..0.063).contains(&relative_error("e4m3/block256", moment, 8.0)));
        assert!((0.08..0.126).contains(&relative_error("e5m2/block256", moment, 8.0)));
        // Over 8 octaves, E4M3's 14.8 of full precision make 1.8 steps of one, and E5M2's 29.8 make 3.7.
        assert!((0.03..0.035).contains(&relative_error("e4m3/block128/expanded", moment, 8.0)));
        assert!((0.03..0.035).contains(&relative_error("e5m2/block128/expanded", moment, 8.0)));
        // Over 20 octaves, E4M3 alone loses small values, and the expansion compresses instead.
        assert!(relative_error("e4m3/block256", moment, 20.0) > 0.3);
        assert!(relative_error("e4m3/block128/expanded", moment, 20.0) < 0.1);
        // The dynamic map's decades get coarser towards zero.
        assert!((0.02..0.06).contains(&relative_error("dynamic8", moment, 3.0)));
    }
}

#[test]
fn nearest_rounding_holds_a_second_moment_in_bf16_still_and_stochastic_does_not() {
    let decayed = |text: &str| {
        let mut run = Run::new(format(text), vec![0.0; 256]);
        run.step(0.0, &[1.0; 256]);
        let before = run.moments[1].to_f32()[0];
        for _ in 0..1000 {
            run.step(0.0, &[0.0; 256]);
        }
        let after = run.moments[1].to_f32();
        f64::from(after.iter().sum::<f32>()) / f64::from(256.0 * before)
    };
    let expected = 0.999f64.powi(1000);
    assert!((decayed("fp32") - expected).abs() < 1e-3);
    assert_eq!(decayed("bf16"), 1.0);
    assert!((decayed("bf16/stochastic") - expected).abs() < 0.05);
    // A scale of its own decays in f32.
    assert!((decayed("dynamic8") - expected).abs() < 1e-3);
    assert!((decayed("e4m3/block128/expanded") - expected).abs() < 1e-3);
}

#[test]
fn a_buffer_survives_being_taken_apart() {
    let formats = published().chain([format("e2m1/block16"), format("int4/block16")]);
    for format in formats {
        for moment in [Moment::First, Moment::Second] {
            for len in [0, 1, 127, 1025] {
                let mut values = uniform(9, len);
                if moment == Moment::Second {
                    values.iter_mut().for_each(|x| *x *= *x);
                }
                let buffer = StateBuffer::from_f32(format, moment, &values);
                let (codes, scales) = (buffer.codes(), buffer.scales().to_vec());
                let exponents = buffer.exponents().to_vec();
                let parts = codes.len() + 4 * scales.len() + exponents.len();
                assert_eq!(parts, format.bytes(len), "{format}");
                let again = StateBuffer::from_parts(format, moment, len, &codes, scales, exponents);
                assert_eq!(again.unwrap(), buffer, "{format}");
            }
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let format = format("e4m3/block128/expanded");
    let make = |len, codes: usize, scales: &[f32], exponents: &[u8]| {
        let codes = vec![0; codes];
        let made = StateBuffer::from_parts(
            format,
            Moment::First,
            len,
            &codes,
            scales.to_vec(),
            exponents.to_vec(),
        );
        made.map_err(|error| error.to_string())
    };
    assert!(make(200, 200, &[1.0, 2.0], &[16, 16]).is_ok());
    let error = make(200, 199, &[1.0, 2.0], &[16, 16]).unwrap_err();
    assert_eq!(
        error,
        "199 bytes of codes, 2 scales and 2 exponents do not make 200 elements of e4m3/block128/expanded"
    );
    assert!(make(200, 200, &[1.0], &[16, 16]).is_err());
    assert!(make(200, 200, &[1.0, 2.0], &[16]).is_err());
    assert!(make(usize::MAX, 200, &[1.0, 2.0], &[16, 16]).is_err());
    for (scale, exponent) in [(f32::NAN, 16), (f32::INFINITY, 16), (-1.0, 16), (1.0, 0)] {
        let error = make(100, 100, &[scale], &[exponent]).unwrap_err();
        assert!(error.contains("that no moment has"), "{error}");
    }
}
