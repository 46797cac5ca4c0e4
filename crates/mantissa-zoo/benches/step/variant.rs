//! The ways to train that are compared.

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use mantissa::optimizer::MasterOptimizer;
use mantissa::plan::{Plan, Policy, Recipe, choose};
use mantissa::profiler::ProfilerConfig;
use mantissa::{Kernels, LossScaler, Session};
use mantissa_zoo::{Bert, MaskedBatch, PlainBert};

use super::Task;

/// Recipes, `fp32` with Burn's own kernels (`fp32-burn`), and a plan chosen from measurements of this very network.
pub const RECIPES: [&str; 8] = [
    "fp32",
    "fp32-burn",
    "bf16",
    "fp16",
    "fp8-hybrid",
    "mxfp8",
    "int8",
    "plan",
];
const LEARNING_RATE: f64 = 1e-3;
/// How often a step is measured by default.
pub const PROFILED_EVERY: u64 = 20;
/// Steps in full precision, all measured, from which the plan is chosen.
const MEASURED_STEPS: u64 = 4;

/// One way to train, ready for its next step.
pub struct Variant {
    name: String,
    trainer: Trainer,
}

enum Trainer {
    Burn(Box<Plain>),
    Mantissa(Box<Mixed>),
}

struct Plain {
    model: PlainBert,
    optimizer: ModuleOptimizer,
}

struct Mixed {
    model: Bert,
    session: Session,
    scaler: LossScaler,
    optimizer: MasterOptimizer,
    steps: u64,
}

impl Variant {
    pub fn burn(task: &Task) -> Self {
        let model = task.config.init_plain(0, &Device::flex().autodiff());
        Self {
            name: "Burn".to_owned(),
            trainer: Trainer::Burn(Box::new(Plain {
                model: model.expect("a preset"),
                optimizer: AdamWConfig::new().init(),
            })),
        }
    }

    /// `name` is one of [`RECIPES`].
    pub fn mantissa(task: &Task, name: &str) -> Self {
        let mixed = match name {
            "plan" => {
                let mut measured = Mixed::new(task, "fp32");
                measured.profile(1);
                let batches = task.batches();
                for step in 0..MEASURED_STEPS {
                    measured.step(&batches.batch(step));
                }
                let profiler = measured.session.finish_profiling();
                let profile = profiler.expect("profiling was started").into_profile();
                let plan = choose(&profile, &Policy::default()).expect("enough was measured");
                Mixed::under(task, &plan)
            }
            "fp32-burn" => {
                let mixed = Mixed::new(task, "fp32");
                mixed.session.set_kernels(Kernels::Burn);
                mixed
            }
            recipe => Mixed::new(task, recipe),
        };
        Self {
            name: name.to_owned(),
            trainer: Trainer::Mantissa(Box::new(mixed)),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn step(&mut self, batch: &MaskedBatch) {
        match &mut self.trainer {
            Trainer::Burn(plain) => plain.step(batch),
            Trainer::Mantissa(mixed) => mixed.step(batch),
        }
    }

    /// A step that measures every operand of every product.
    pub fn profiled_step(&mut self, batch: &MaskedBatch) {
        if let Trainer::Mantissa(mixed) = &mut self.trainer {
            mixed.profile(1);
            mixed.step(batch);
            mixed.session.finish_profiling();
        }
    }
}

impl Plain {
    fn step(&mut self, batch: &MaskedBatch) {
        let gradients = self.model.forward_loss(batch).backward();
        let gradients = GradientsParams::from_grads(gradients, &self.model);
        let model = self.model.clone();
        self.model = self.optimizer.step(LEARNING_RATE, model, gradients);
    }
}

impl Mixed {
    fn new(task: &Task, recipe: &str) -> Self {
        let model = Self::model(task);
        let recipe = Recipe::preset(recipe).expect("a preset");
        let plan = Plan::from_recipe(&recipe, &mantissa::sites(&model));
        Self::under(task, &plan.expect("presets apply to every model"))
    }

    fn under(task: &Task, plan: &Plan) -> Self {
        let model = Self::model(task);
        let session = Session::bind(&model, plan, 0).expect("the plan is of this model");
        Self {
            scaler: LossScaler::for_plan(plan),
            optimizer: MasterOptimizer::new(mantissa::optimizer::AdamWConfig::new())
                .with_session(&session),
            session,
            model,
            steps: 0,
        }
    }

    fn model(task: &Task) -> Bert {
        let model = task.config.init(0, &Device::flex().autodiff());
        model.expect("a preset")
    }

    fn profile(&self, every: u64) {
        self.session.start_profiling(ProfilerConfig {
            every,
            ..ProfilerConfig::default()
        });
    }

    fn step(&mut self, batch: &MaskedBatch) {
        self.session.begin_step(self.steps);
        self.steps += 1;
        let loss = self.session.autocast(|| self.model.forward_loss(batch));
        let gradients = self.scaler.scale(loss).backward();
        let step = self
            .optimizer
            .step(LEARNING_RATE, &mut self.model, gradients, &mut self.scaler);
        drop(step);
    }
}
