//! Updates against f64 references, and what must not change their bits.

use mantissa_kernels::optimizer::{Adam, Momentum, Sgd, WeightDecay};

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;
const LEARNING_RATE: f64 = 1e-2;

/// The gradient of element `i` in step `step`: magnitudes from 1e-9, where epsilon rules, to 1.
fn gradient(i: usize, step: u64) -> f32 {
    let phase = (i as f64 * 0.7 + step as f64 * 1.3).sin();
    (phase * 10f64.powi(-(i as i32 % 10))) as f32
}

fn gradients(len: usize, step: u64) -> Vec<f32> {
    (0..len).map(|i| gradient(i, step)).collect()
}

fn start(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).cos()).collect()
}

fn assert_close(actual: &[f32], reference: &[f64], tolerance: f64) {
    for (i, (&actual, reference)) in actual.iter().zip(reference).enumerate() {
        let error = (f64::from(actual) - reference).abs();
        assert!(
            error <= tolerance * reference.abs().max(1.0),
            "element {i} is {actual}, the reference {reference}"
        );
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn adam_follows_the_papers() {
    let len = 97;
    for decay in [
        WeightDecay::Decoupled(0.0),
        WeightDecay::Decoupled(0.1),
        WeightDecay::L2(0.1),
    ] {
        let mut parameters = start(len);
        let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
        let mut reference: Vec<f64> = start(len).iter().map(|&x| f64::from(x)).collect();
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let [b1, b2] = BETAS.map(f64::from);
        for step in 1..=300 {
            Adam::new(BETAS, EPSILON, decay, LEARNING_RATE, step).update(
                1.0,
                &gradients(len, step),
                &mut parameters,
                [(&mut first).into(), (&mut second).into()],
            );
            for i in 0..len {
                let mut g = f64::from(gradient(i, step));
                match decay {
                    WeightDecay::Decoupled(rate) => {
                        reference[i] -= LEARNING_RATE * f64::from(rate) * reference[i];
                    }
                    WeightDecay::L2(rate) => g += f64::from(rate) * reference[i],
                }
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let m_hat = m[i] / (1.0 - b1.powi(step as i32));
                let v_hat: f64 = v[i] / (1.0 - b2.powi(step as i32));
                reference[i] -= LEARNING_RATE * m_hat / (v_hat.sqrt() + f64::from(EPSILON));
            }
        }
        assert_close(&parameters, &reference, 1e-5);
        assert_close(&first, &m, 1e-6);
        assert_close(&second, &v, 1e-6);
    }
}

#[test]
fn sgd_follows_torch() {
    let len = 41;
    let momenta = [
        None,
        Some((0.9, 0.0, false)),
        Some((0.9, 0.1, false)),
        Some((0.8, 0.3, true)),
    ];
    for momentum in momenta {
        for penalty in [0.0_f32, 0.05] {
            let rule = momentum.map(|(momentum, dampening, nesterov)| Momentum {
                momentum,
                dampening,
                nesterov,
            });
            let mut parameters = start(len);
            let mut velocity = vec![0.0; momentum.map_or(0, |_| len)];
            let mut reference: Vec<f64> = start(len).iter().map(|&x| f64::from(x)).collect();
            let mut u = vec![0.0; len];
            for step in 1..=100 {
                Sgd::new(penalty, rule, LEARNING_RATE, step).update(
                    1.0,
                    &gradients(len, step),
                    &mut parameters,
                    (&mut velocity).into(),
                );
                for i in 0..len {
                    let g = f64::from(gradient(i, step)) + f64::from(penalty) * reference[i];
                    let direction = match momentum {
                        None => g,
                        Some((momentum, dampening, nesterov)) => {
                            u[i] = if step == 1 {
                                g
                            } else {
                                momentum * u[i] + (1.0 - dampening) * g
                            };
                            if nesterov { g + momentum * u[i] } else { u[i] }
                        }
                    };
                    reference[i] -= LEARNING_RATE * direction;
                }
            }
            assert_close(&parameters, &reference, 1e-5);
        }
    }
}

/// Parameters after three steps of AdamW and of SGD on gradients that were multiplied by `scales`.
fn scaled_run(len: usize, scales: [f32; 3], clip: f32) -> Vec<u32> {
    let (mut adam, mut sgd) = (start(len), start(len));
    let mut moments = [vec![0.0; len], vec![0.0; len], vec![0.0; len]];
    let [first, second, velocity] = &mut moments;
    let momentum = Some(Momentum {
        momentum: 0.9,
        dampening: 0.1,
        nesterov: true,
    });
    for (scale, step) in scales.into_iter().zip(1..) {
        let scaled: Vec<f32> = gradients(len, step).iter().map(|g| g * scale).collect();
        let factor = clip / scale;
        let decay = WeightDecay::Decoupled(0.01);
        Adam::new(BETAS, EPSILON, decay, LEARNING_RATE, step).update(
            factor,
            &scaled,
            &mut adam,
            [(&mut *first).into(), (&mut *second).into()],
        );
        Sgd::new(0.01, momentum, LEARNING_RATE, step).update(
            factor,
            &scaled,
            &mut sgd,
            (&mut *velocity).into(),
        );
    }
    [adam, sgd].concat().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn powers_of_two_of_the_loss_scale_leave_no_trace() {
    for clip in [1.0, 0.123] {
        let plain = scaled_run(1000, [1.0; 3], clip);
        assert_eq!(scaled_run(1000, [65536.0; 3], clip), plain);
        assert_eq!(scaled_run(1000, [0.25, 1024.0, 16_777_216.0], clip), plain);
        // The comparison can fail: a scale that is no power of two rounds.
        assert_ne!(scaled_run(1000, [3.0; 3], clip), plain);
    }
}

#[test]
fn thread_counts_agree_bit_for_bit() {
    // Several tasks, the last of them short.
    let len = 3 * 32768 + 77;
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build()
            .unwrap()
            .install(|| scaled_run(len, [2.0; 3], 1.0))
    };
    let one = on(1);
    assert_eq!(on(2), one);
    assert_eq!(on(3), one);
    // Tasks agree with what a tensor too small to be split gives.
    let (adam, sgd) = one.split_at(len);
    let small = scaled_run(500, [2.0; 3], 1.0);
    assert_eq!(adam[..500], small[..500]);
    assert_eq!(sgd[..500], small[500..]);
}

#[test]
fn zero_gradients_move_nothing_without_decay() {
    let len = 33;
    let zeros = vec![0.0; len];
    let (mut parameters, mut first, mut second) = (start(len), zeros.clone(), zeros.clone());
    let mut velocity = zeros.clone();
    for step in 1..=3 {
        let decay = WeightDecay::Decoupled(0.0);
        Adam::new(BETAS, f32::MIN_POSITIVE, decay, LEARNING_RATE, step).update(
            0.5,
            &zeros,
            &mut parameters,
            [(&mut first).into(), (&mut second).into()],
        );
        let momentum = Some(Momentum {
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
        });
        Sgd::new(0.0, momentum, LEARNING_RATE, step).update(
            0.5,
            &zeros,
            &mut parameters,
            (&mut velocity).into(),
        );
    }
    assert_eq!(bits(&parameters), bits(&start(len)));
    assert_eq!([first, second, velocity].concat(), vec![0.0; 3 * len]);
}

#[test]
fn a_late_step_needs_no_bias_correction() {
    let run = |step| {
        let (mut parameters, mut first, mut second) = (vec![1.0], vec![0.5], vec![0.25]);
        let decay = WeightDecay::Decoupled(0.0);
        Adam::new(BETAS, EPSILON, decay, 0.1, step).update(
            1.0,
            &[0.5],
            &mut parameters,
            [(&mut first).into(), (&mut second).into()],
        );
        parameters[0]
    };
    assert_eq!(run(u64::MAX), 0.9);
    // 0.5 / 0.1 over sqrt(0.25 / 0.001), times 0.1.
    assert!((run(1) - 0.968_377_2).abs() < 1e-6);
}

#[test]
#[should_panic(expected = "5 parameters, 4 gradients, 5 first and 5 second moments")]
fn lengths_must_agree() {
    let decay = WeightDecay::Decoupled(0.0);
    let adam = Adam::new(BETAS, EPSILON, decay, LEARNING_RATE, 1);
    let mut moments = [vec![0.0; 5], vec![0.0; 5]];
    let moments = moments.each_mut().map(|moment| moment.into());
    adam.update(1.0, &[0.0; 4], &mut [0.0; 5], moments);
}

#[test]
#[should_panic(expected = "the epsilon of Adam is positive, not 0")]
fn epsilon_must_be_positive() {
    Adam::new(BETAS, 0.0, WeightDecay::Decoupled(0.0), LEARNING_RATE, 1);
}
