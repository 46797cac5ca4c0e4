//! `SupervisedTraining` under a plan against the crate's own step-level loop, and its checkpoints.

mod batches;
mod loops;
mod model;

use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use mantissa::plan::Recipe;
use mantissa::{Plan, storage};
use mantissa_burn_train::MixedPrecision;

use batches::{Samples, loader};
use loops::{own_loop, supervised};
use model::{Classifier, bits, classifier};

/// Twelve batches.
const SAMPLES: usize = 96;

/// Weights that are stored in fewer bits and rounded stochastically.
const STORED: &str = r#"
    schema = 1
    name = "int8-weights"
    [storage]
    parameters = "int8/channel/stochastic"
    min_elements = 64
"#;

fn plan(recipe: &str, model: &Classifier) -> Plan {
    let recipe = if recipe == STORED {
        Recipe::from_toml(STORED)
    } else {
        Recipe::preset(recipe)
    };
    let recipe = recipe.expect("a recipe");
    Plan::from_recipe(&recipe, &mantissa::sites(model)).expect("it fits")
}

/// A rate that is another in every step.
fn schedule() -> ModuleLrScheduler {
    let linear = LinearLrSchedulerConfig::new(1e-2, 1e-4, 60);
    linear.init().expect("a rate falls")
}

#[test]
fn supervised_training_is_the_own_loop_bit_for_bit() {
    for recipe in ["fp32", "fp8-hybrid", "fp8-delayed", "mellempudi", STORED] {
        let model = classifier(1);
        let plan = plan(recipe, &model);
        let samples = Samples::new(SAMPLES);
        let own = own_loop(model.clone(), &plan, schedule(), &samples, 2, 1);

        let folder = tempfile::tempdir().expect("a folder");
        let run = supervised(folder.path(), model.clone(), &plan, &samples);
        let trained = run.epochs(2).launch(schedule());
        assert_eq!(bits(trained.inner()), bits(&own.model), "{recipe}");
        assert_ne!(bits(trained.inner()), bits(&model), "{recipe}");
        assert_eq!(trained.progress(), own.progress, "{recipe}");
        let (first, last) = (own.losses[0], own.losses[own.losses.len() - 1]);
        assert!(last < 0.8 * first, "{recipe}: {first} -> {last}");
    }
}

#[test]
fn skipped_steps_change_nothing_and_the_schedule_waits_for_them() {
    let model = classifier(2);
    let plan = plan("fp8-hybrid", &model);
    let samples = Samples::new(SAMPLES).with_overflow(20).with_overflow(93);
    let own = own_loop(model.clone(), &plan, schedule(), &samples, 1, 1);
    assert_eq!((own.progress.step, own.progress.skipped), (12, 2));

    let folder = tempfile::tempdir().expect("a folder");
    let trained = supervised(folder.path(), model.clone(), &plan, &samples).launch(schedule());
    assert_eq!(bits(trained.inner()), bits(&own.model));
    assert_eq!(trained.progress(), own.progress);

    // Only the poisoned batch: nothing moves.
    let folder = tempfile::tempdir().expect("a folder");
    let poisoned = Samples::new(8).with_overflow(3);
    let untrained = supervised(folder.path(), model.clone(), &plan, &poisoned).launch(schedule());
    assert_eq!(bits(untrained.inner()), bits(&model));
    assert_eq!(untrained.progress().skipped, 1);
}

#[test]
fn metrics_show_the_scale_and_the_skipped_steps_of_each_batch() {
    let model = classifier(3);
    let plan = plan("fp16", &model);
    let samples = Samples::new(48).with_overflow(20);
    let own = own_loop(model.clone(), &plan, schedule(), &samples, 1, 1);
    let folder = tempfile::tempdir().expect("a folder");
    supervised(folder.path(), model, &plan, &samples).launch(schedule());

    let logged = |metric: &str| loops::logged(folder.path(), metric);
    assert_eq!(logged("Loss Scale"), own.scales);
    assert!(
        own.scales.windows(2).any(|pair| pair[1] < pair[0]),
        "it overflowed"
    );
    assert_eq!(logged("Skipped Steps"), own.skipped);
    assert!(own.progress.skipped >= 1);
}

#[test]
fn micro_batches_are_one_step_with_one_scale() {
    for recipe in ["fp8-delayed", "fp16", STORED] {
        let model = classifier(4);
        let plan = plan(recipe, &model);
        // The last step of an epoch has one micro-batch.
        let samples = Samples::new(SAMPLES + 8).with_overflow(30);
        let own = own_loop(model.clone(), &plan, schedule(), &samples, 2, 2);
        assert_eq!(own.progress.step, 14);
        assert!(own.progress.skipped >= 2, "{recipe}");

        let folder = tempfile::tempdir().expect("a folder");
        let run = supervised(folder.path(), model, &plan, &samples);
        let trained = run.epochs(2).accumulating(2).launch(schedule());
        assert_eq!(bits(trained.inner()), bits(&own.model), "{recipe}");
        assert_eq!(trained.progress(), own.progress, "{recipe}");
    }
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_one_that_was_never_interrupted() {
    // In the last step of the epochs that are saved, so that the schedule waits over the interruption.
    let samples = Samples::new(SAMPLES).with_overflow(90);
    for recipe in ["fp8-delayed", "mellempudi", "fp16", STORED] {
        let model = classifier(5);
        let plan = plan(recipe, &model);
        let folder = tempfile::tempdir().expect("a folder");
        let whole = supervised(folder.path(), model.clone(), &plan, &samples).epochs(4);
        let whole = whole.launch(schedule());
        assert_ne!(bits(whole.inner()), bits(&model));

        let folder = tempfile::tempdir().expect("a folder");
        let run = supervised(folder.path(), model, &plan, &samples).epochs(2);
        let half = run.launch(schedule());
        assert_ne!(bits(whole.inner()), bits(half.inner()));
        // Another start, which the checkpoint replaces.
        let run = supervised(folder.path(), classifier(6), &plan, &samples).epochs(4);
        let resumed = run.resuming(2).launch(schedule());
        assert_eq!(bits(resumed.inner()), bits(whole.inner()), "{recipe}");
        assert_eq!(resumed.progress(), whole.progress());
    }
}

#[test]
fn a_checkpoint_of_another_plan_is_loaded_only_when_that_is_allowed() {
    use burn::module::Module;

    let model = classifier(7);
    let samples = Samples::new(SAMPLES);
    let folder = tempfile::tempdir().expect("a folder");
    let delayed = plan("fp8-delayed", &model);
    let run = supervised(folder.path(), model.clone(), &delayed, &samples);
    let record = run.launch(schedule()).into_record();

    let wrap = || loops::wrapped(classifier(8), &plan("bf16", &model));
    let error = wrap()
        .try_load_record(record.clone())
        .expect_err("another plan");
    assert!(error.to_string().contains("allow_plan_change"), "{error}");

    let changed = wrap().allow_plan_change();
    let changed = changed.try_load_record(record.clone()).expect("allowed");
    assert_eq!(changed.progress().step, 12);
    let wrapped = loops::wrapped(classifier(9), &delayed);
    let same = wrapped
        .try_load_record(record.clone())
        .expect("the same plan");
    assert_eq!(bits(changed.inner()), bits(same.inner()));

    // The model alone, without the state of the run.
    let alone = classifier(10).try_load_record(record.allow_unused(true));
    assert_eq!(
        bits(&alone.expect("the model's own paths")),
        bits(same.inner())
    );
    let pretrained =
        loops::wrapped(classifier(11), &delayed).load_record(model.clone().into_record());
    assert_eq!(bits(pretrained.inner()), bits(&model));
    assert_eq!(pretrained.progress().step, 0);
}

#[test]
fn training_that_only_skips_ends_with_a_diagnosis() {
    let model = classifier(12);
    let plan = plan("fp8-hybrid", &model);
    let samples = (0..12).fold(Samples::new(SAMPLES), |samples, batch| {
        samples.with_overflow(8 * batch)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let run = supervised(folder.path(), model.clone(), &plan, &samples).epochs(3);
    let (trained, reason) = run.stopping_after(5).launch_to_end(schedule());
    let reason = reason.expect("it was stopped");
    assert!(reason.starts_with("5 steps skipped in a row"), "{reason}");
    assert!(reason.contains("the forward pass broke"), "{reason}");
    assert_eq!(trained.progress().step, 5);
    assert_eq!(bits(trained.inner()), bits(&model));
}

#[test]
fn stored_weights_come_and_go_with_the_plan() {
    use burn::module::Module;

    let model = classifier(13);
    let [wide, narrow] = ["fp8-hybrid", STORED].map(|recipe| plan(recipe, &model));
    let wrap = |seed, plan: &Plan| loops::wrapped(classifier(seed), plan).allow_plan_change();
    let stored = |model: &MixedPrecision<Classifier>| -> Vec<String> {
        let stored = storage::stored(model.inner());
        stored.into_iter().map(|stored| stored.path).collect()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let run = supervised(
        folder.path(),
        model.clone(),
        &narrow,
        &Samples::new(SAMPLES),
    );
    let trained = run.launch(schedule());
    assert_eq!(stored(&trained), ["hidden.weight", "output.weight"]);
    let record = trained.clone().into_record();

    let same = wrap(14, &narrow).load_record(record.clone());
    assert_eq!(stored(&same), stored(&trained));
    assert_eq!(bits(same.inner()), bits(trained.inner()));
    let widened = wrap(15, &wide).load_record(record.clone());
    assert!(stored(&widened).is_empty());
    assert_eq!(bits(widened.inner()), bits(trained.inner()));
    let narrowed = wrap(16, &narrow).load_record(widened.clone().into_record());
    assert_eq!(stored(&narrowed), stored(&trained));
    // What INT8 holds already, INT8 holds exactly.
    assert_eq!(bits(narrowed.inner()), bits(trained.inner()));
    assert_eq!(narrowed.progress(), trained.progress());
}
