//! Enhanced scaling: the floor that rises at given steps, and the one that rises when the loss stalls.

use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::{DynamicScaling, EnhancedScaling, Floor, FloorStep, Stall};
use mantissa::scaler::Observation;
use proptest::prelude::*;

use crate::{overflows, patterns, scaler, scales};

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

pub fn enhanced_scaling(thresholds: &[(usize, f32)]) -> LossScaling {
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

pub fn stall_scaling(stall: Stall) -> LossScaling {
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

proptest! {
    #[test]
    fn enhanced_follows_its_recurrence(overflows in overflows()) {
        let thresholds = [(7, 4.0), (30, 128.0), (60, 4096.0)];
        prop_assert_eq!(
            scales(enhanced_scaling(&thresholds), &overflows),
            enhanced(&thresholds, &overflows)
        );
    }
}
