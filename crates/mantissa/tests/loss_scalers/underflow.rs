//! Underflow-aware scaling: up while gradients are lost, down before they overflow.

use mantissa::LossScaler;
use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::UnderflowScaling;
use mantissa::scaler::Observation;
use mantissa_formats::Format;
use mantissa_metrics::ExponentHistogram;

use crate::scaler;

pub const UNDERFLOW: UnderflowScaling = UnderflowScaling {
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
