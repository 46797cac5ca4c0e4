//! Loss scalers against the recurrences that their origins publish, each written here anew and without the others.

use burn::tensor::{Device, Tensor};
use mantissa::nn::LinearConfig;
use mantissa::optimizer::AdamWConfig;
use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::{
    DynamicScaling, EnhancedScaling, Floor, FloorStep, LogMaxScaling, Stall, UnderflowScaling,
};
use mantissa::scaler::Observation;
use mantissa::{LossScaler, MasterOptimizer, Step};
use mantissa_formats::Format;
use mantissa_metrics::ExponentHistogram;
use proptest::prelude::*;

fn scaler(scaling: LossScaling) -> LossScaler {
    LossScaler::new(&scaling).unwrap()
}

/// The scale after each of these steps.
fn scales(scaling: LossScaling, overflows: &[bool]) -> Vec<f32> {
    let mut scaler = scaler(scaling);
    let mut after = |&overflowed: &bool| {
        scaler.observe(&Observation::of(overflowed));
        scaler.loss_scale()
    };
    overflows.iter().map(&mut after).collect()
}

/// No step, all steps and every third step overflow.
fn patterns() -> [Vec<bool>; 3] {
    [
        vec![false; 40],
        vec![true; 40],
        (0..40).map(|step| step % 3 == 2).collect(),
    ]
}

/// What happens at random: overflows are rare, common, or the rule.
fn overflows() -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![Just(0.05), Just(0.3), Just(0.9)]
        .prop_flat_map(|share| prop::collection::vec(prop::bool::weighted(share), 1..120))
}

/// `_amp_update_scale_`: with `found_inf`, scale x backoff and tracker 0; else, at `growth_interval`, scale x growth if
/// that is finite, and tracker 0.
fn torch(init: f32, interval: u32, overflows: &[bool]) -> Vec<f32> {
    let (mut scale, mut tracker) = (init, 0);
    let mut after = |&found_inf: &bool| {
        if found_inf {
            scale *= 0.5;
            tracker = 0;
        } else {
            tracker += 1;
            if tracker == interval {
                if (scale * 2.0).is_finite() {
                    scale *= 2.0;
                }
                tracker = 0;
            }
        }
        scale
    };
    overflows.iter().map(&mut after).collect()
}

/// apex: `unskipped` steps up to the window; at most 2^24.
fn apex(init: f32, window: u32, overflows: &[bool]) -> Vec<f32> {
    let (mut scale, mut unskipped) = (init, 0);
    let mut after = |&overflowed: &bool| {
        if overflowed {
            scale /= 2.0;
            unskipped = 0;
        } else {
            unskipped += 1;
        }
        if unskipped == window {
            scale = (scale * 2.0).min(16777216.0);
            unskipped = 0;
        }
        scale
    };
    overflows.iter().map(&mut after).collect()
}

/// DeepSpeed: growth where `(iter - last_overflow - 1)` is a positive multiple of the window; `None` from the step on
/// that raises "Current loss scale already at minimum".
fn deepspeed(
    init: f32,
    window: i64,
    delayed_shift: u32,
    consecutive: bool,
    overflows: &[bool],
) -> Vec<Option<f32>> {
    let (mut scale, mut hysteresis, mut last_overflow) = (init, delayed_shift, -1);
    let mut raised = false;
    let mut after = |(iter, &overflowed): (usize, &bool)| {
        let iter = iter as i64;
        if overflowed {
            if delayed_shift == 1 || hysteresis == 1 {
                raised |= scale == 1.0;
                scale = (scale / 2.0).max(1.0);
            } else {
                hysteresis -= 1;
            }
            last_overflow = iter;
        } else {
            if consecutive {
                hysteresis = delayed_shift;
            }
            let stable = iter - last_overflow - 1;
            if stable > 0 && stable % window == 0 {
                hysteresis = delayed_shift;
                scale *= 2.0;
            }
        }
        (!raised).then_some(scale)
    };
    overflows.iter().enumerate().map(&mut after).collect()
}

/// Megatron-LM: the hysteresis tracker goes down at every overflow, below 0 too, and only growth fills it up.
fn megatron(init: f32, interval: u32, hysteresis: i32, overflows: &[bool]) -> Vec<f32> {
    let (mut scale, mut growth_tracker, mut hysteresis_tracker) = (init, 0, hysteresis);
    let mut after = |&found_inf: &bool| {
        if found_inf {
            growth_tracker = 0;
            hysteresis_tracker -= 1;
            if hysteresis_tracker <= 0 {
                scale = (scale * 0.5).max(1.0);
            }
        } else {
            growth_tracker += 1;
            if growth_tracker == interval {
                growth_tracker = 0;
                hysteresis_tracker = hysteresis;
                scale *= 2.0;
            }
        }
        scale
    };
    overflows.iter().map(&mut after).collect()
}

fn check_dynamic(overflows: &[bool], init: f32, interval: u32, hysteresis: u32) {
    let with = |preset: DynamicScaling| DynamicScaling {
        init_scale: init,
        growth_interval: interval,
        ..preset
    };
    let of = |settings| scales(LossScaling::Dynamic(settings), overflows);
    let expected = torch(init, interval, overflows);
    assert_eq!(of(with(DynamicScaling::TORCH_AMP)), expected);
    let expected = apex(init, interval, overflows);
    assert_eq!(of(with(DynamicScaling::APEX)), expected);
    let settings = DynamicScaling {
        hysteresis,
        ..with(DynamicScaling::MEGATRON)
    };
    let expected = megatron(init, interval, hysteresis as i32, overflows);
    assert_eq!(of(settings), expected);
    for consecutive_hysteresis in [false, true] {
        let settings = DynamicScaling {
            hysteresis,
            consecutive_hysteresis,
            ..with(DynamicScaling::DEEPSPEED)
        };
        let window = i64::from(interval);
        let expected = deepspeed(init, window, hysteresis, consecutive_hysteresis, overflows);
        let mut scaler = scaler(LossScaling::Dynamic(settings));
        for (&overflowed, expected) in overflows.iter().zip(expected) {
            scaler.observe(&Observation::of(overflowed));
            assert_eq!(scaler.is_exhausted(), expected.is_none());
            match expected {
                Some(scale) => assert_eq!(scaler.loss_scale(), scale),
                None => break,
            }
        }
    }
}

#[test]
fn dynamic_presets_follow_their_origins_without_with_all_and_with_some_overflows() {
    for overflows in patterns() {
        for (init, interval, hysteresis) in [(65536.0, 4, 2), (8.0, 1, 1), (2.0, 3, 3)] {
            check_dynamic(&overflows, init, interval, hysteresis);
        }
    }
}

#[test]
fn deepspeeds_own_test_trajectories() {
    // `test_dynamic_loss_scale.py`, window 2 from 2^8: the first growth is after the third clean step.
    let settings = DynamicScaling {
        init_scale: 256.0,
        growth_interval: 2,
        hysteresis: 1,
        min_scale: 0.25,
        ..DynamicScaling::DEEPSPEED
    };
    let of = |overflows: &[bool]| scales(LossScaling::Dynamic(settings), overflows);
    assert_eq!(
        of(&[false; 6]),
        [256.0, 256.0, 512.0, 512.0, 1024.0, 1024.0]
    );
    assert_eq!(of(&[true; 3]), [128.0, 64.0, 32.0]);
    assert_eq!(
        of(&[true, false, false, false]),
        [128.0, 128.0, 128.0, 256.0]
    );
}

#[test]
fn the_scale_stays_within_both_bounds() {
    let settings = DynamicScaling {
        init_scale: 2.0,
        min_scale: 0.75,
        max_scale: 5.0,
        growth_interval: 1,
        ..DynamicScaling::TORCH_AMP
    };
    let of = |settings, overflows: &[bool]| scales(LossScaling::Dynamic(settings), overflows);
    assert_eq!(of(settings, &[true; 4]), [1.0, 0.75, 0.75, 0.75]);
    assert_eq!(of(settings, &[false; 3]), [4.0, 5.0, 5.0]);
    let torch = DynamicScaling {
        growth_interval: 1,
        ..DynamicScaling::TORCH_AMP
    };
    assert_eq!(of(torch, &[true; 200])[199], f32::MIN_POSITIVE);
    assert_eq!(of(torch, &[false; 200])[199], 2f32.powi(127));
}

/// Mellempudi et al.: the back-off scale, never below the threshold of the step that it is for.
fn enhanced(thresholds: &[(usize, f32)], overflows: &[bool]) -> Vec<f32> {
    let threshold = |step: usize| {
        let reached = thresholds.iter().filter(|(from, _)| *from <= step);
        reached.fold(1f32, |highest, (_, scale)| highest.max(*scale))
    };
    let (mut scale, mut clean) = (64f32, 0);
    let mut after = |(step, &overflowed): (usize, &bool)| {
        if overflowed {
            clean = 0;
            scale /= 2.0;
        } else {
            clean += 1;
            if clean == 5 {
                clean = 0;
                scale *= 2.0;
            }
        }
        scale = scale.max(threshold(step + 1));
        scale
    };
    overflows.iter().enumerate().map(&mut after).collect()
}

fn enhanced_scaling(thresholds: &[(usize, f32)]) -> LossScaling {
    let steps = thresholds.iter().map(|&(from_step, min_scale)| FloorStep {
        from_step: from_step as u64,
        min_scale,
    });
    LossScaling::Enhanced(EnhancedScaling {
        dynamic: DynamicScaling {
            init_scale: 64.0,
            growth_interval: 5,
            max_scale: f32::MAX,
            ..DynamicScaling::DEFAULT
        },
        floor: Floor::Steps(steps.collect()),
    })
}

#[test]
fn the_enhanced_scale_rises_with_its_floor_and_ignores_spurious_overflows() {
    let thresholds = [(10, 8.0), (25, 512.0)];
    for overflows in patterns() {
        assert_eq!(
            scales(enhanced_scaling(&thresholds), &overflows),
            enhanced(&thresholds, &overflows)
        );
    }
    let all = scales(enhanced_scaling(&thresholds), &[true; 40]);
    assert_eq!(
        (all[8], all[9], all[23], all[24], all[39]),
        (1.0, 8.0, 8.0, 512.0, 512.0)
    );
    // A floor from the first step on counts for the first loss.
    assert_eq!(scaler(enhanced_scaling(&[(0, 128.0)])).loss_scale(), 128.0);
}

fn stall_scaling(stall: Stall) -> LossScaling {
    LossScaling::Enhanced(EnhancedScaling {
        dynamic: DynamicScaling {
            init_scale: 1.0,
            ..DynamicScaling::DEFAULT
        },
        floor: Floor::Stall(stall),
    })
}

#[test]
fn the_floor_rises_when_the_loss_stalls() {
    let mut scaler = scaler(stall_scaling(Stall {
        smoothing: 0.0,
        improvement: 0.1,
        patience: 3,
        factor: 4.0,
        limit: 32.0,
    }));
    let mut after = |loss: f32| {
        scaler.observe(&Observation {
            loss,
            ..Observation::of(true)
        });
        scaler.loss_scale()
    };
    // Falls by more than a tenth at each step; then by less; what is not finite does not count.
    assert_eq!([4.0, 3.5, 3.0].map(&mut after), [1.0; 3]);
    assert_eq!([2.9, 2.8, f32::NAN].map(&mut after), [1.0; 3]);
    assert_eq!(after(2.75), 4.0);
    assert_eq!([2.0, 2.0, 2.0, 2.0].map(&mut after), [4.0, 4.0, 4.0, 16.0]);
    assert_eq!(
        [2.0; 6].map(&mut after),
        [16.0, 16.0, 32.0, 32.0, 32.0, 32.0]
    );
}

#[test]
fn the_mean_of_the_loss_is_corrected_for_its_start() {
    let mut scaler = scaler(stall_scaling(Stall {
        smoothing: 0.9,
        improvement: 1e-6,
        patience: 2,
        factor: 2.0,
        limit: 32.0,
    }));
    // A constant loss stalls from its second step on; uncorrected, its mean would rise from 0.
    let mut after = |_| {
        scaler.observe(&Observation {
            loss: 5.0,
            ..Observation::of(false)
        });
        scaler.min_scale().unwrap()
    };
    let floors: Vec<f32> = (0..5).map(&mut after).collect();
    assert_eq!(floors, [1.0, 1.0, 2.0, 2.0, 4.0]);
}

/// OpenSeq2Seq's LogMax with the overflow's `x` as `log_max`: moments as weighted sums over the whole past, not as
/// running means.
fn log_max(settings: &LogMaxScaling, seen: &[Option<f64>]) -> f64 {
    let moment = |beta: f64, power: i32| {
        let weights = (0..seen.len()).map(|i| beta.powi((seen.len() - 1 - i) as i32));
        let (sum, total) =
            seen.iter()
                .zip(weights)
                .fold((0.0, 0.0), |(sum, total), (amax, weight)| {
                    let x = amax.map_or(settings.log_max, f64::log2);
                    (sum + weight * x.powi(power), total + weight)
                });
        sum / total
    };
    let slow = settings.deviation_smoothing;
    let variance = moment(slow, 2) - moment(slow, 1).powi(2);
    let mean = moment(settings.mean_smoothing, 1);
    let proposed = 2f64.powf(16.0 - (mean + 3.09 * variance.max(0.0).sqrt()));
    proposed.clamp(1.0, 16384.0)
}

fn check_log_max(amaxes: &[Option<f64>]) {
    let settings = LogMaxScaling::DEFAULT;
    let mut scaler = scaler(LossScaling::LogMax(settings));
    assert_eq!(scaler.loss_scale(), 16384.0);
    for step in 0..amaxes.len() {
        let loss_scale = scaler.loss_scale();
        scaler.observe(&Observation {
            loss_scale,
            amax: amaxes[step].map_or(0.0, |amax| amax as f32 * loss_scale),
            ..Observation::of(amaxes[step].is_none())
        });
        let expected = log_max(&settings, &amaxes[..=step]);
        let found = f64::from(scaler.loss_scale());
        // The amax is rounded to f32 twice.
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn log_max_follows_mean_and_deviation_of_the_largest_gradient() {
    check_log_max(&[Some(0.5); 30]);
    check_log_max(&[None; 30]);
    let some: Vec<_> = (0..60)
        .map(|i| (i % 9 != 4).then(|| 2f64.powi(i % 5) * 3.0))
        .collect();
    check_log_max(&some);
    // Constant gradients leave no deviation: exactly as high as the target allows.
    let mut scaler = scaler(LossScaling::LogMax(LogMaxScaling::DEFAULT));
    scaler.observe(&Observation {
        loss_scale: 16.0,
        amax: 256.0,
        ..Observation::of(false)
    });
    assert_eq!(scaler.loss_scale(), 4096.0);
    // All gradients zero: nothing to learn from.
    let before = scaler.clone();
    scaler.observe(&Observation::of(false));
    assert_eq!(scaler, before);
}

const UNDERFLOW: UnderflowScaling = UnderflowScaling {
    init_scale: 16.0,
    format: Format::E5M2,
    max_underflow: 0.1,
    raise_after: 2,
    headroom: 2,
    min_scale: 0.5,
    max_scale: 1048576.0,
};

/// A step on gradients that are, unscaled, these.
fn observe_gradients(scaler: &mut LossScaler, unscaled: &[f32]) {
    let loss_scale = scaler.loss_scale();
    let scaled: Vec<f32> = unscaled.iter().map(|x| x * loss_scale).collect();
    scaler.observe(&Observation {
        loss_scale,
        amax: scaled.iter().fold(0.0, |amax: f32, x| amax.max(x.abs())),
        exponents: Some(&ExponentHistogram::of(&scaled)),
        ..Observation::of(false)
    });
}

#[test]
fn the_underflow_aware_scale_rises_until_few_gradients_are_lost() {
    let mut scaler = scaler(LossScaling::UnderflowAware(UNDERFLOW));
    assert!(scaler.wants_exponents());
    // 2^-26 is lost below a scale of 2^9, where it becomes half of E5M2's smallest value, 2^-16; zeros do not count.
    let gradients = [2f32.powi(-26), 1.0, -2.0, 0.0, 0.0, 0.0];
    let mut trajectory = vec![];
    for _ in 0..16 {
        observe_gradients(&mut scaler, &gradients);
        trajectory.push(scaler.loss_scale().log2());
    }
    let expected: Vec<f32> = (1..=16)
        .map(|step| 4.0 + (step / 2).min(5) as f32)
        .collect();
    assert_eq!(trajectory, expected);
    // The reference: as many of the scaled gradients become zero in the codec as the rule says.
    let lost = |scale: f32| {
        let code = mantissa_formats::encode(
            Format::E5M2,
            gradients[0] * scale * 1.01,
            mantissa_formats::Rounding::Nearest,
            mantissa_formats::Overflow::Special,
            0,
        );
        mantissa_formats::decode(Format::E5M2, code) == 0.0
    };
    assert!(lost(2f32.powi(8)) && !lost(2f32.powi(9)));
}

#[test]
fn the_underflow_aware_scale_falls_before_anything_overflows() {
    let mut scaler = scaler(LossScaling::UnderflowAware(UNDERFLOW));
    // 2^13 x 16 has the exponent 17; two powers of two below E5M2's largest exponent, 15, is 13.
    observe_gradients(&mut scaler, &[8192.0, 1.0]);
    assert_eq!(scaler.loss_scale(), 1.0);
    observe_gradients(&mut scaler, &[8192.0, 1.0]);
    assert_eq!(scaler.loss_scale(), 1.0);
    // Half of all gradients are lost, but there is no room to rise.
    for _ in 0..10 {
        observe_gradients(&mut scaler, &[8192.0, 1e-30]);
    }
    assert_eq!(scaler.loss_scale(), 1.0);
    for _ in 0..3 {
        scaler.observe(&Observation::of(true));
    }
    assert_eq!(scaler.loss_scale(), 0.5, "the smallest allowed");
    for _ in 0..200 {
        observe_gradients(&mut scaler, &[1e-30, 1e-32]);
    }
    assert_eq!(scaler.loss_scale(), 1048576.0, "the largest allowed");
}

#[test]
fn a_constant_scale_and_none_stay_and_count_skips() {
    for (mut scaler, scale) in [(LossScaler::none(), 1.0), (LossScaler::constant(3.0), 3.0)] {
        for (overflowed, skips) in [(true, 1), (true, 2), (false, 0), (true, 1)] {
            scaler.observe(&Observation::of(overflowed));
            assert_eq!(
                (scaler.loss_scale(), scaler.skips_in_a_row()),
                (scale, skips)
            );
        }
    }
}

/// One of each kind, with windows short enough to be in the middle of.
fn every_kind() -> Vec<LossScaling> {
    let dynamic = DynamicScaling {
        growth_interval: 4,
        hysteresis: 3,
        ..DynamicScaling::DEEPSPEED
    };
    let stall = Stall {
        smoothing: 0.9,
        improvement: 0.001,
        patience: 3,
        factor: 2.0,
        limit: 4096.0,
    };
    vec![
        LossScaling::None,
        LossScaling::Constant(0.1),
        LossScaling::Dynamic(dynamic),
        enhanced_scaling(&[(10, 8.0), (25, 512.0)]),
        stall_scaling(stall),
        LossScaling::LogMax(LogMaxScaling::DEFAULT),
        LossScaling::UnderflowAware(UNDERFLOW),
    ]
}

fn observe_random(scaler: &mut LossScaler, overflowed: bool, size: f32) {
    let gradients = [size, size * 1e-9];
    scaler.observe(&Observation {
        overflowed,
        loss: size,
        loss_scale: scaler.loss_scale(),
        amax: size * scaler.loss_scale(),
        exponents: Some(&ExponentHistogram::of(&gradients)),
    });
}

proptest! {
    #[test]
    fn dynamic_presets_follow_their_origins(
        overflows in overflows(),
        power in 0..20i32,
        interval in 1..9u32,
        hysteresis in 1..4u32,
    ) {
        check_dynamic(&overflows, 2f32.powi(power), interval, hysteresis);
    }

    #[test]
    fn enhanced_follows_its_recurrence(overflows in overflows()) {
        let thresholds = [(7, 4.0), (30, 128.0), (60, 4096.0)];
        prop_assert_eq!(
            scales(enhanced_scaling(&thresholds), &overflows),
            enhanced(&thresholds, &overflows)
        );
    }

    #[test]
    fn log_max_follows_its_moments(
        seen in prop::collection::vec(prop::option::weighted(0.9, 1e-6..1e3f64), 1..80)
    ) {
        check_log_max(&seen);
    }

    /// Saved and loaded after any step, a scaler goes on as if it had not been.
    #[test]
    fn a_scaler_resumes_in_the_middle_of_a_window(
        steps in prop::collection::vec((prop::bool::weighted(0.3), 1e-6..1e3f32), 1..60),
        saved_at in 0..60usize,
    ) {
        for scaling in every_kind() {
            let mut straight = scaler(scaling);
            let mut resumed = straight.clone();
            for (step, &(overflowed, size)) in steps.iter().enumerate() {
                if step == saved_at {
                    let text = serde_json::to_string(&straight).unwrap();
                    resumed = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(resumed.check(), Ok(()));
                }
                observe_random(&mut straight, overflowed, size);
                observe_random(&mut resumed, overflowed, size);
                prop_assert_eq!(&resumed, &straight);
                prop_assert_eq!(resumed.loss_scale().to_bits(), straight.loss_scale().to_bits());
            }
            prop_assert_eq!(straight.check(), Ok(()), "within its bounds");
        }
    }

    /// However a power-of-two scale moves, growth steps included, the weights are those of no scaling at all.
    #[test]
    fn the_update_does_not_depend_on_the_trajectory(
        overflows in prop::collection::vec(prop::bool::weighted(0.3), 1..12),
        interval in 1..3u32,
    ) {
        let run = |mut scaler: LossScaler| {
            let device = Device::flex().autodiff();
            device.seed(3);
            let mut layer = LinearConfig::new(5, 3).init(&device);
            let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_max_norm(0.5);
            for (step, &overflowed) in overflows.iter().enumerate() {
                let input = Tensor::<2>::from_data([[0.5, -1.0, 2.0, 0.25, step as f32]], &device);
                let loss = layer.forward(input).powi_scalar(2).mean();
                let gain = if overflowed { f32::INFINITY } else { 1.0 };
                let gradients = scaler.scale(loss.mul_scalar(gain)).backward();
                let outcome = optimizer.step(1e-2, &mut layer, gradients, &mut scaler);
                assert_eq!(matches!(outcome, Step::Skipped { .. }), overflowed);
            }
            let weight = layer.weight.val().into_data();
            let bits: Vec<u32> = weight.iter::<f32>().map(f32::to_bits).collect();
            (bits, scaler.loss_scale())
        };
        let (plain, _) = run(LossScaler::none());
        let (moved, _) = run(scaler(LossScaling::Dynamic(DynamicScaling {
            growth_interval: interval,
            ..DynamicScaling::TORCH_AMP
        })));
        prop_assert_eq!(moved, plain);
    }
}
