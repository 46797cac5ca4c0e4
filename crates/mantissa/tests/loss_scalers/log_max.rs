//! LogMax against its definition as weighted sums.

use mantissa::plan::LossScaling;
use mantissa::plan::loss_scaling::LogMaxScaling;
use mantissa::scaler::Observation;
use proptest::prelude::*;

use crate::scaler;

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

proptest! {
    #[test]
    fn log_max_follows_its_moments(
        seen in prop::collection::vec(prop::option::weighted(0.9, 1e-6..1e3f64), 1..80)
    ) {
        check_log_max(&seen);
    }
}
