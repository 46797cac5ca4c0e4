//! Loss scalers against the recurrences that their origins publish, each written here anew and without the others.

mod dynamic;
mod enhanced;
mod log_max;
mod underflow;

use burn::tensor::{Device, Tensor};
use mantissa::nn::LinearConfig;
use mantissa::optimizer::AdamWConfig;
use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::{DynamicScaling, LogMaxScaling, Stall};
use mantissa::scaler::Observation;
use mantissa::{LossScaler, MasterOptimizer, Step};
use mantissa_metrics::ExponentHistogram;
use proptest::prelude::*;

use enhanced::{enhanced_scaling, stall_scaling};
use underflow::UNDERFLOW;

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
