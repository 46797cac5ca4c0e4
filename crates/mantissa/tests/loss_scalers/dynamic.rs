//! Dynamic scaling as torch.amp, apex, DeepSpeed and Megatron-LM do it.

use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::DynamicScaling;
use mantissa::scaler::Observation;
use proptest::prelude::*;

use crate::{overflows, patterns, scaler, scales};

/// Twice the scale if that is finite, as torch.amp has it. DeepSpeed's and Megatron-LM's go on to an infinite scale, from which
/// no halving comes back, and which is none of the semantics that presets keep.
fn doubled(scale: f32) -> f32 {
    let twice = scale * 2.0;
    if twice.is_finite() { twice } else { scale }
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
                scale = doubled(scale);
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
                scale = doubled(scale);
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
                scale = doubled(scale);
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
}
