//! Faults injected into every part of a step: what a skipped step says about its cause.

mod seeded;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::{Linear, LinearConfig};
use mantissa::optimizer::{AdamWConfig, Verdict, non_finite_weights};
use mantissa::plan::loss_scaling::DynamicScaling;
use mantissa::plan::{LossScaling, Pass, Plan, Recipe, Role};
use mantissa::{LossScaler, MasterOptimizer, Session, SkipCause, Step};

use crate::seeded::seeded;

/// Two layers in fp16, so that faults have places.
#[derive(burn::module::Module, Debug)]
struct Network {
    first: Linear,
    last: Linear,
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn network() -> Network {
    seeded(1, || {
        let network = Network {
            first: LinearConfig::new(6, 5).init(&device()),
            last: LinearConfig::new(5, 4).init(&device()),
        };
        let _ = (network.first.weight.val(), network.last.weight.val());
        network
    })
}

/// One step on inputs of this size; the loss is multiplied by `gain`.
fn step(
    network: &mut Network,
    scaler: &mut LossScaler,
    input: f32,
    gain: f32,
) -> Result<(), SkipCause> {
    let recipe = Recipe::preset("fp16").unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(network)).unwrap();
    let session = Session::bind(network, &plan, 0).unwrap();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new()).with_session(&session);
    session.begin_step(0);
    let values: Vec<f32> = (0..18).map(|i| input * ((i % 7) as f32 - 2.5)).collect();
    let input = Tensor::<2>::from_data(TensorData::new(values, [3, 6]), &device());
    let loss = session.autocast(|| network.last.forward(network.first.forward(input)));
    let loss = loss.mean().mul_scalar(gain);
    let gradients = scaler.scale(loss).backward();
    match optimizer.step(1e-3, network, gradients, scaler) {
        Step::Applied { .. } => Ok(()),
        Step::Skipped { cause } => Err(cause),
    }
}

fn dynamic(settings: DynamicScaling) -> LossScaler {
    LossScaler::new(&LossScaling::Dynamic(settings)).unwrap()
}

fn says(cause: &SkipCause, parts: &[&str]) {
    let text = format!("{cause} | {}", cause.remedy());
    for part in parts {
        assert!(text.contains(part), "`{part}` in {text}");
    }
}

#[test]
fn an_overflow_in_the_backward_pass_names_its_operand_and_the_next_scale() {
    let mut scaler = dynamic(DynamicScaling::DEFAULT);
    assert_eq!(step(&mut network(), &mut scaler, 1.0, 1.0), Ok(()));
    // The gradient of the output, gain x scale / 12, is beyond 65504; the loss is far from it.
    let cause = step(&mut network(), &mut scaler, 1.0, 16.0).unwrap_err();
    assert_eq!(cause.verdict(), Verdict::Lowered);
    assert!(cause.loss.is_finite());
    let first = &cause.faults[0];
    assert_eq!((first.site.as_str(), first.role), ("last", Role::Grad));
    assert_ne!(first.pass, Pass::Forward);
    assert_eq!(
        (cause.loss_scale, cause.next_loss_scale),
        (65536.0, 32768.0)
    );
    let names: Vec<_> = cause
        .parameters
        .iter()
        .map(|p| p.parameter.as_str())
        .collect();
    assert_eq!(names[0], "first.weight");
    assert!(names.contains(&"last.weight"));
    let weight = &cause.parameters[0];
    assert_eq!((weight.count, weight.elements), (30, 30));
    says(
        &cause,
        &[
            "overflowed at loss scale 65536",
            "operand grad of last",
            "first first.weight (30 of 30 elements",
            "next loss scale 32768",
        ],
    );
    // The bias of the last layer is no product: its gradient is finite.
    assert!(!names.contains(&"last.bias"));
}

#[test]
fn the_largest_finite_gradient_is_reported_beside_those_that_are_not() {
    let mut network = network();
    let mut scaler = LossScaler::constant(8.0);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    let bias = network.last.bias.as_ref().unwrap().val();
    let factors = Tensor::<1>::from_data([f32::MAX, -3.0, 0.5, 2.0], &device());
    let loss = (bias * factors).sum().mul_scalar(0.5);
    let gradients = scaler.scale(loss).backward();
    let Step::Skipped { cause } = optimizer.step(1e-3, &mut network, gradients, &mut scaler) else {
        panic!("f32's largest, four times, is not finite");
    };
    let bias = &cause.parameters[0];
    assert_eq!(cause.parameters.len(), 1);
    assert_eq!(
        (
            bias.parameter.as_str(),
            bias.count,
            bias.elements,
            bias.amax
        ),
        ("last.bias", 1, 4, 12.0)
    );
    assert_eq!(cause.verdict(), Verdict::Kept);
    says(&cause, &["the scale stays at 8", "1 parameter with"]);
}

#[test]
fn a_forward_pass_that_breaks_is_not_blamed_on_the_scale() {
    for input in [f32::NAN, f32::INFINITY, 1e30] {
        let mut scaler = dynamic(DynamicScaling::DEFAULT);
        let cause = step(&mut network(), &mut scaler, input, 1.0).unwrap_err();
        assert_eq!(cause.verdict(), Verdict::BrokenForward);
        let first = &cause.faults[0];
        assert_eq!(
            (first.site.as_str(), first.role, first.pass),
            ("first", Role::Lhs, Pass::Forward)
        );
        says(
            &cause,
            &[
                "the forward pass broke, which no loss scale mends",
                "operand lhs of first (forward)",
                "the loss scale is not the cause",
            ],
        );
        assert!(!cause.to_string().contains("next loss scale"));
    }
}

#[test]
fn a_loss_that_is_not_finite_is_a_broken_forward_pass_also_without_a_session() {
    let mut network = network();
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
    let mut scaler = LossScaler::none();
    let loss = network.first.weight.val().sum().mul_scalar(f32::NAN);
    let gradients = scaler.scale(loss).backward();
    let Step::Skipped { cause } = optimizer.step(1e-3, &mut network, gradients, &mut scaler) else {
        panic!("NaN was applied");
    };
    assert_eq!(cause.verdict(), Verdict::BrokenForward);
    assert!(cause.faults.is_empty());
    says(&cause, &["the loss is NaN", "the operand that overflows"]);
}

#[test]
fn broken_weights_are_named() {
    let mut broken = network();
    assert!(non_finite_weights(&broken).is_empty());
    let mut values: Vec<f32> = broken.last.weight.val().into_data().iter::<f32>().collect();
    (values[3], values[7]) = (f32::NAN, f32::NEG_INFINITY);
    let weight = Tensor::<2>::from_data(TensorData::new(values, [5, 4]), &device());
    broken.last.weight = Param::from_tensor(weight);
    let mut scaler = dynamic(DynamicScaling::DEFAULT);
    let cause = step(&mut broken, &mut scaler, 1.0, 1.0).unwrap_err();
    assert_eq!(cause.verdict(), Verdict::BrokenWeights);
    assert_eq!(cause.weights, non_finite_weights(&broken));
    says(
        &cause,
        &[
            "2 of 20 elements of last.weight are not finite",
            "checkpoint with finite weights",
        ],
    );
}

#[test]
fn the_smallest_scale_is_said_to_be_innocent() {
    let settings = DynamicScaling {
        init_scale: 4.0,
        min_scale: 2.0,
        ..DynamicScaling::DEFAULT
    };
    let mut scaler = dynamic(settings);
    let verdicts: Vec<Verdict> = (0..3)
        .map(|_| {
            let cause = step(&mut network(), &mut scaler, 1.0, 1e6).unwrap_err();
            cause.verdict()
        })
        .collect();
    assert_eq!(
        verdicts,
        [Verdict::Lowered, Verdict::AtMinimum, Verdict::AtMinimum]
    );
    let cause = step(&mut network(), &mut scaler, 1.0, 1e6).unwrap_err();
    assert_eq!(cause.skips_in_a_row, 4);
    assert!(!cause.is_exhausted, "these settings do not stop");
    says(&cause, &["even at the scale 2", "give grad of last"]);

    let mut scaler = dynamic(DynamicScaling {
        init_scale: 1.0,
        hysteresis: 2,
        ..DynamicScaling::DEEPSPEED
    });
    let exhausted: Vec<bool> = (0..3)
        .map(|_| {
            let cause = step(&mut network(), &mut scaler, 1.0, 1e6).unwrap_err();
            cause.is_exhausted
        })
        .collect();
    assert_eq!(exhausted, [false, true, true]);

    let mut constant = LossScaler::constant(512.0);
    let cause = step(&mut network(), &mut constant, 1.0, 1e6).unwrap_err();
    assert_eq!(cause.verdict(), Verdict::Kept);
    says(&cause, &["the scale stays at 512", "dynamic"]);
    let cause = step(&mut network(), &mut LossScaler::none(), 1.0, 1e6).unwrap_err();
    says(&cause, &["even at the scale 1"]);
}
