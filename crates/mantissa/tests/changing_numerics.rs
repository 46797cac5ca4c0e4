//! Other numerics for a bound session: as if a new one were bound, and nothing else changes.

mod seeded;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mantissa::optimizer::{AdamWConfig, MasterOptimizer, Step};
use mantissa::plan::{Pass, PassNumerics, Plan, Recipe, Sampling};
use mantissa::{LossScaler, Session, checkpoint, nn};

use crate::seeded::seeded;

#[derive(Module, Debug)]
struct Network {
    inner: nn::Linear,
    outer: nn::Linear,
}

impl Network {
    fn new() -> Self {
        seeded(3, || {
            let network = Self {
                inner: nn::LinearConfig::new(16, 24).init(&device()),
                outer: nn::LinearConfig::new(24, 8).init(&device()),
            };
            // Burn draws weights when they are first read.
            let _ = (network.inner.weight.val(), network.outer.weight.val());
            network
        })
    }

    fn loss(&self) -> Tensor<1> {
        let hidden = self.inner.forward(batch()).tanh();
        self.outer.forward(hidden).powi_scalar(2).mean()
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn batch() -> Tensor<2> {
    let values: Vec<f32> = (0..12 * 16).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::<1>::from_floats(&values[..], &device()).reshape([12, 16])
}

fn optimizer() -> MasterOptimizer {
    MasterOptimizer::new(AdamWConfig::new())
}

fn plan(recipe: &str, model: &Network) -> Plan {
    Plan::from_recipe(&Recipe::preset(recipe).unwrap(), &mantissa::sites(model)).unwrap()
}

/// The losses of some steps, whose bits tell everything before apart.
fn train(
    session: &Session,
    model: &mut Network,
    optimizer: &mut MasterOptimizer,
    steps: std::ops::Range<u64>,
) -> Vec<u32> {
    let mut scaler = LossScaler::none();
    let losses = steps.map(|step| {
        session.begin_step(step);
        let loss = session.autocast(|| model.loss());
        let gradients = scaler.scale(loss).backward();
        match optimizer.step(1e-2, model, gradients, &mut scaler) {
            Step::Applied { loss, .. } => loss.to_bits(),
            Step::Skipped { cause } => panic!("{cause}"),
        }
    });
    losses.collect()
}

/// Delayed scaling remembers, stochastic rounding draws: neither may notice how the numerics came into force.
#[test]
fn a_session_that_changes_is_one_that_was_bound_anew() {
    for (before, after) in [
        ("fp8-delayed", "int8"),
        ("int8", "fp8-delayed"),
        ("fp8-hybrid", "fp32"),
        ("mellempudi", "mxfp4-weights"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Network::new();
        let old = plan(before, &model);
        // One site keeps its numerics, and what it remembers.
        let mut new = old.clone();
        let of_new = plan(after, &model).site("inner").unwrap().numerics;
        let inner = new.sites.iter_mut().find(|site| site.name == "inner");
        inner.unwrap().numerics = of_new;

        let session = Session::bind(&model, &old, 9).unwrap();
        let mut optimizer_1 = optimizer().with_session(&session);
        train(&session, &mut model, &mut optimizer_1, 0..5);
        let progress = checkpoint::Progress {
            seed: 9,
            step: 5,
            applied: 5,
            skipped: 0,
        };
        let saved = checkpoint::save(
            folder.path(),
            &model,
            &session,
            &optimizer_1,
            &LossScaler::none(),
            &old,
            progress,
        )
        .unwrap();
        session.change_numerics(&new).unwrap();
        let changed = train(&session, &mut model, &mut optimizer_1, 5..12);

        let loaded = checkpoint::load(&saved, Network::new()).unwrap();
        let mut model = loaded.model;
        let bound = Session::bind(&model, &new, 9).unwrap();
        bound.restore_amaxes(loaded.amaxes.carried_over(&loaded.plan, &new));
        let mut optimizer_2 = optimizer()
            .with_session(&bound)
            .load_record(loaded.optimizer)
            .unwrap();
        let anew = train(&bound, &mut model, &mut optimizer_2, 5..12);
        assert_eq!(changed, anew, "{before} to {after}");
        assert_eq!(session.amaxes(), bound.amaxes(), "{before} to {after}");
    }
}

#[test]
fn a_backward_pass_keeps_the_numerics_of_its_forward_pass() {
    let model = Network::new();
    let (int8, fp32) = (plan("int8", &model), plan("fp32", &model));
    let gradient = |session: &Session, change: Option<&Plan>| {
        session.begin_step(0);
        let loss = session.autocast(|| model.loss());
        if let Some(plan) = change {
            session.change_numerics(plan).unwrap();
        }
        let gradients = loss.backward();
        let weight = model.inner.weight.val();
        weight.grad(&gradients).unwrap().into_data()
    };
    let bound = |plan| Session::bind(&model, plan, 1).unwrap();
    let changed = gradient(&bound(&int8), Some(&fp32));
    assert_eq!(changed, gradient(&bound(&int8), None));
    assert_ne!(changed, gradient(&bound(&fp32), None));
}

#[test]
fn a_plan_of_another_model_changes_nothing() {
    let model = Network::new();
    let session = Session::bind(&model, &plan("int8", &model), 1).unwrap();
    let mut other = plan("fp32", &model);
    other.sites.pop();
    let error = session.change_numerics(&other).unwrap_err();
    assert!(error.to_string().contains("does not decide"), "{error}");
    let error = session.set_outlier("iner", 2.0).unwrap_err();
    assert!(error.to_string().contains("iner"), "{error}");
}

#[test]
fn only_the_step_that_was_asked_for_is_sampled() {
    let mut model = Network::new();
    let session = Session::bind(&model, &plan("int8", &model), 1).unwrap();
    let mut optimizer = optimizer().with_session(&session);
    session.sample_step(1, Sampling::default());
    train(&session, &mut model, &mut optimizer, 0..1);
    assert_eq!(session.take_samples(), []);
    session.sample_step(1, Sampling::default());
    let weight = model.outer.weight.val().into_data();
    train(&session, &mut model, &mut optimizer, 1..2);
    let samples = session.take_samples();
    let taken: Vec<(&str, Pass)> = samples
        .iter()
        .map(|sample| (sample.site.as_str(), sample.pass))
        .collect();
    let expected = ["inner", "outer"].map(|site| Pass::ALL.map(|pass| (site, pass)));
    assert_eq!(taken, expected.concat());
    // Of the outer product's right operand, columns of the weight before the update.
    let rows = &samples[3].rows;
    let amax = weight
        .iter::<f32>()
        .fold(0.0, |top: f32, x| top.max(x.abs()));
    assert_eq!(
        (rows.step, rows.depth, rows.outer_right, rows.right_amax),
        (1, 24, 8, amax)
    );
    let column: Vec<f32> = weight.iter::<f32>().step_by(8).collect();
    assert_eq!(rows.right[..24], column);
    assert_eq!(session.take_samples(), []);
    assert!(session.sampling_time().as_nanos() > 0);
}

/// An outlier leaves the function as it is, and is seen by what measures.
#[test]
fn an_outlier_is_one_of_the_operands_alone() {
    let model = Network::new();
    let run = |recipe: &str, factor: f32| {
        let mut numerics = plan(recipe, &model);
        if recipe != "fp32" {
            let both = PassNumerics::both("int8/tensor".parse().unwrap());
            numerics.sites[1].numerics.forward = both;
        }
        let session = Session::bind(&model, &numerics, 1).unwrap();
        session.set_outlier("outer", factor).unwrap();
        session.sample_step(0, Sampling::default());
        session.begin_step(0);
        let loss = session.autocast(|| model.loss());
        let gradients = loss.backward();
        let weight = model.outer.weight.val().grad(&gradients).unwrap();
        let gradient: Vec<f32> = weight.into_data().iter::<f32>().collect();
        let amax = session.take_samples()[3].rows.left_amax;
        (loss.into_scalar::<f32>(), gradient, amax)
    };
    let (loss, gradient, amax) = run("fp32", 1.0);
    let (same_loss, same_gradient, larger) = run("fp32", 1024.0);
    assert!((loss - same_loss).abs() < 1e-5 * loss);
    for (a, b) in gradient.iter().zip(&same_gradient) {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1e-3), "{a} {b}");
    }
    assert!(larger > 50.0 * amax);
    let (quantized, ..) = run("int8", 1.0);
    let (drowned, ..) = run("int8", 1024.0);
    assert!((quantized - loss).abs() < 0.05 * loss, "{quantized} {loss}");
    assert!((drowned - loss).abs() > 0.2 * loss, "{drowned} {loss}");
}
