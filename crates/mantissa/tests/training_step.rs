//! What a step does, and what it must not do, when gradients overflow.

mod seeded;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use mantissa::nn::{Linear, LinearConfig};
use mantissa::optimizer::{AdamWConfig, MasterOptimizer, Step};
use mantissa::plan::loss_scaling::DynamicScaling;
use mantissa::plan::{LossScaling, Pass, Plan, Recipe};
use mantissa::profiler::ProfilerConfig;
use mantissa::{LossScaler, Session, checkpoint};

use crate::seeded::seeded;

fn device() -> Device {
    Device::flex().autodiff()
}

fn layer() -> Linear {
    seeded(1, || {
        let layer = LinearConfig::new(6, 4).init(&device());
        let _ = layer.weight.val();
        layer
    })
}

fn input(scale: f32) -> Tensor<2> {
    let values: Vec<f32> = (0..30).map(|i| scale * (i % 7) as f32 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, [5, 6]), &device())
}

fn optimizer() -> MasterOptimizer {
    MasterOptimizer::new(AdamWConfig::new())
}

fn dynamic(settings: DynamicScaling) -> LossScaler {
    LossScaler::new(&LossScaling::Dynamic(settings)).unwrap()
}

fn loss(layer: &Linear, scale: f32) -> Tensor<1> {
    layer.forward(input(scale)).powi_scalar(2).mean()
}

fn weights(layer: &Linear) -> Vec<u32> {
    let values = layer.weight.val().into_data();
    values.iter::<f32>().map(f32::to_bits).collect()
}

fn state(optimizer: &MasterOptimizer) -> Vec<u8> {
    optimizer.to_record().into_bytes().unwrap()
}

#[test]
fn injected_overflows_skip_steps_and_move_the_scale() {
    let config = DynamicScaling {
        init_scale: 1024.0,
        growth_interval: 3,
        ..DynamicScaling::DEFAULT
    };
    let (mut layer, mut optimizer) = (layer(), optimizer());
    let mut scaler = dynamic(config);
    let overflows = [false, true, false, false, false, true, true, false];
    let expected = [1024.0, 512.0, 512.0, 512.0, 1024.0, 512.0, 256.0, 256.0];
    let (mut growths, mut backoffs) = (0, 0);
    for (overflows, expected) in overflows.into_iter().zip(expected) {
        let before = (weights(&layer), state(&optimizer), scaler.loss_scale());
        // Finite in the forward pass; its gradient, multiplied by the scale, is not.
        let loss = loss(&layer, 1.0);
        let loss = if overflows {
            loss.mul_scalar(1e36)
        } else {
            loss
        };
        let gradients = scaler.scale(loss).backward();
        match optimizer.step(1e-2, &mut layer, gradients, &mut scaler) {
            Step::Applied { loss_scale, .. } => {
                assert!(!overflows);
                assert_eq!(loss_scale, before.2);
                assert_ne!(weights(&layer), before.0);
            }
            Step::Skipped { cause } => {
                assert!(overflows);
                assert_eq!((weights(&layer), state(&optimizer)), (before.0, before.1));
                assert_eq!(
                    (cause.loss_scale, cause.next_loss_scale),
                    (before.2, scaler.loss_scale())
                );
                assert_eq!(cause.parameters[0].parameter, "weight");
            }
        }
        backoffs += i32::from(overflows);
        growths += i32::from(scaler.loss_scale() > before.2);
        assert_eq!(scaler.loss_scale(), expected);
        assert_eq!(
            scaler.loss_scale(),
            1024.0 * 2f32.powi(growths) * 0.5f32.powi(backoffs)
        );
    }
}

#[test]
fn the_update_does_not_depend_on_the_scale_for_powers_of_two() {
    let run = |scales: [f32; 4]| {
        let (mut layer, mut optimizer) = (layer(), optimizer());
        for scale in scales {
            let mut scaler = LossScaler::constant(scale);
            let gradients = scaler.scale(loss(&layer, 1.0)).backward();
            let step = optimizer.step(1e-2, &mut layer, gradients, &mut scaler);
            assert!(matches!(step, Step::Applied { .. }));
        }
        weights(&layer)
    };
    let plain = run([1.0; 4]);
    assert_eq!(run([65536.0; 4]), plain);
    assert_eq!(run([0.5, 1024.0, 2048.0, 4.0]), plain);
}

#[test]
fn clipping_bounds_the_global_norm_of_unscaled_gradients() {
    // One layer for all: the device's generator, which initializes them, is shared with the tests beside this one.
    let layer = layer();
    let norm_of = |scale: f32| {
        let mut layer = layer.clone();
        let mut optimizer = optimizer().with_max_norm(1e-3);
        let mut scaler = LossScaler::constant(scale);
        let gradients = scaler.scale(loss(&layer, 1.0)).backward();
        match optimizer.step(1e-2, &mut layer, gradients, &mut scaler) {
            Step::Applied { gradient_norm, .. } => gradient_norm,
            Step::Skipped { cause } => panic!("{cause}"),
        }
    };
    let gradients = GradientsParams::from_grads(loss(&layer, 1.0).backward(), &layer);
    let square = |sum: f64, x: f32| sum + f64::from(x).powi(2);
    let weight = gradients.get::<2>(layer.weight.id).unwrap().into_data();
    let bias = gradients
        .get::<1>(layer.bias.as_ref().unwrap().id)
        .unwrap()
        .into_data();
    let exact = weight
        .iter::<f32>()
        .chain(bias.iter::<f32>())
        .fold(0.0, square)
        .sqrt();
    assert!((norm_of(1.0) / exact - 1.0).abs() < 1e-6);
    assert_eq!(norm_of(1.0), norm_of(4096.0));
}

#[test]
fn a_resumed_run_is_the_run() {
    for recipe in ["int8", "fp8-delayed"] {
        resume_in_the_middle(recipe);
    }
}

fn resume_in_the_middle(recipe: &str) {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::preset(recipe).unwrap();
    let bind = |layer: &Linear| {
        let plan = Plan::from_recipe(&recipe, &mantissa::sites(layer)).unwrap();
        (Session::bind(layer, &plan, 9).unwrap(), plan)
    };
    let take_steps = |session: &Session,
                      layer: &mut Linear,
                      optimizer: &mut MasterOptimizer,
                      scaler: &mut LossScaler,
                      steps: std::ops::Range<u64>| {
        for step in steps {
            session.begin_step(step);
            let loss = session.autocast(|| loss(layer, 1.0));
            let gradients = scaler.scale(loss).backward();
            let _ = optimizer.step(1e-2, layer, gradients, scaler);
        }
    };
    let config = DynamicScaling {
        growth_interval: 4,
        ..DynamicScaling::DEFAULT
    };
    let (mut straight, mut optimizer_1) = (layer(), optimizer());
    let mut scaler_1 = dynamic(config);
    let (session_1, plan) = bind(&straight);
    take_steps(
        &session_1,
        &mut straight,
        &mut optimizer_1,
        &mut scaler_1,
        0..6,
    );
    let progress = checkpoint::Progress {
        seed: 9,
        step: 6,
        applied: 6,
        skipped: 0,
    };
    let saved = checkpoint::save(
        folder.path(),
        &straight,
        &session_1,
        &optimizer_1,
        &scaler_1,
        &plan,
        progress,
    )
    .unwrap();
    take_steps(
        &session_1,
        &mut straight,
        &mut optimizer_1,
        &mut scaler_1,
        6..12,
    );

    let fresh = LinearConfig::new(6, 4).init(&device());
    let loaded = checkpoint::load(&saved, fresh).unwrap();
    assert_eq!(loaded.progress, progress);
    let (mut resumed, mut scaler_2) = (loaded.model, loaded.scaler);
    let (session_2, _) = bind(&resumed);
    session_2.restore_amaxes(loaded.amaxes);
    let mut optimizer_2 = optimizer().load_record(loaded.optimizer).unwrap();
    take_steps(
        &session_2,
        &mut resumed,
        &mut optimizer_2,
        &mut scaler_2,
        6..12,
    );
    assert_eq!(weights(&resumed), weights(&straight));
    assert_eq!(state(&optimizer_2), state(&optimizer_1));
    assert_eq!(scaler_2, scaler_1);
    assert_eq!(session_2.amaxes(), session_1.amaxes());
    let delays = recipe.name == "fp8-delayed";
    assert_eq!(session_2.amaxes().is_empty(), !delays, "{}", recipe.name);
}

#[test]
fn damaged_checkpoints_are_errors_that_name_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let layer = layer();
    let plan =
        Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &mantissa::sites(&layer)).unwrap();
    let save = || {
        checkpoint::save(
            folder.path(),
            &layer,
            &Session::bind(&layer, &plan, 0).unwrap(),
            &optimizer(),
            &LossScaler::none(),
            &plan,
            checkpoint::Progress::default(),
        )
        .unwrap()
    };
    let error = |path| match checkpoint::load(path, LinearConfig::new(6, 4).init(&device())) {
        Ok(_) => panic!("a damaged checkpoint was loaded"),
        Err(error) => error.to_string(),
    };

    let path = save();
    let model = path.join("model.bpk");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    assert!(error(&path).contains("model.bpk has"), "{}", error(&path));
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&model, altered).unwrap();
    assert!(error(&path).contains("checksum"), "{}", error(&path));
    std::fs::remove_file(&model).unwrap();
    assert!(
        error(&path).contains("model.bpk cannot be read"),
        "{}",
        error(&path)
    );

    // The schema before the scaler had all its settings, and one to come.
    let path = save();
    for schema in [2, 99] {
        let manifest = format!("{{\"schema\": {schema}}}");
        std::fs::write(path.join("checkpoint.json"), manifest).unwrap();
        let text = error(&path);
        assert!(text.contains(&format!("has schema {schema}")), "{text}");
    }

    let path = save();
    let manifest = path.join("checkpoint.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let constant = text.replace("\"policy\": \"none\"", "\"policy\": { \"constant\": -1 }");
    assert_ne!(constant, text);
    std::fs::write(&manifest, constant).unwrap();
    assert!(
        error(&path).contains("finite and positive"),
        "{}",
        error(&path)
    );

    let path = save();
    let other = checkpoint::load(&path, LinearConfig::new(5, 4).init(&device()));
    let text = other
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(text.contains("another model"), "{text}");
}

#[test]
fn pruning_keeps_the_newest_and_clears_what_was_left_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let layer = layer();
    let plan =
        Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &mantissa::sites(&layer)).unwrap();
    for step in [3, 20, 100] {
        let progress = checkpoint::Progress {
            step,
            ..checkpoint::Progress::default()
        };
        checkpoint::save(
            folder.path(),
            &layer,
            &Session::bind(&layer, &plan, 0).unwrap(),
            &optimizer(),
            &LossScaler::none(),
            &plan,
            progress,
        )
        .unwrap();
    }
    std::fs::create_dir(folder.path().join(".saving-abc")).unwrap();
    checkpoint::prune(folder.path(), 2).unwrap();
    let left: Vec<_> = checkpoint::list(folder.path()).unwrap();
    assert_eq!(
        left,
        [20, 100].map(|step| folder.path().join(format!("step-{step:08}")))
    );
    assert!(!folder.path().join(".saving-abc").exists());
}

#[test]
fn a_profile_holds_the_gradients_of_the_loss_itself() {
    let layer = layer();
    let recipe = Recipe::preset("fp32").unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(&layer)).unwrap();
    let profile = |loss_scale: f32| {
        let session = Session::bind(&layer, &plan, 1).unwrap();
        session.start_profiling(ProfilerConfig {
            every: 1,
            ..ProfilerConfig::default()
        });
        session.begin_step(0);
        let loss = session.autocast(|| loss(&layer, 1.0));
        let scaler = LossScaler::new(&LossScaling::Constant(loss_scale)).unwrap();
        let gradients = scaler.scale(loss).backward();
        drop(gradients);
        session.finish_profiling().unwrap().into_profile()
    };
    let unscaled = profile(1.0);
    let grad = &unscaled.sites[0].passes[&Pass::GradLhs].left;
    assert!(grad.amax > 0.0);
    assert!(profile(65536.0) == unscaled);
}
