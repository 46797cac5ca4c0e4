//! Digits, learnt in 8-bit floating point by burn-train: `cargo run --release --example digits -- --help`.

mod data;
#[path = "../../../../crates/mantissa/examples/mnist/digits.rs"]
mod digits;
#[path = "../../../../crates/mantissa/examples/training/draws.rs"]
mod draws;
#[path = "../../../../crates/mantissa/examples/mnist/model.rs"]
mod model;
/// Where the digits look for what they are drawn by.
mod training {
    pub use crate::draws::Draws;
}

use std::error::Error;
use std::path::PathBuf;

use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
use burn::tensor::{Device, Tensor};
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{ClassificationOutput, SupervisedTraining};
use clap::Parser;
use mantissa::nn::loss::CrossEntropyLossConfig;
use mantissa::optimizer::{AdamWConfig, MasterOptimizer};
use mantissa::plan::{Plan, Recipe};
use mantissa_burn_train::{MixedPrecision, Objective};

use data::{Batch, Digits};
use model::{Network, NetworkConfig};

/// A convolutional network learns digits under a recipe, inside burn-train's SupervisedTraining.
///
/// The digits are drawn by the program itself. In a terminal burn-train shows its dashboard: the loss, the accuracy, the
/// learning rate, the loss scale and the skipped steps of each batch; elsewhere it prints a line now and then. What it logs
/// and saves goes to --out.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  digits                                    two epochs under fp8-hybrid
  digits --recipe fp16 --out runs/fp16      with a loss scale that moves: watch it fall and rise
  digits --batch 8 --accumulate 4           batches of 32 in the memory of 8
  digits --epochs 4 --resume 2              goes on after epoch 2, as if it had never ended

Exit codes: 0 trained to the end, 1 an error, 3 stopped because every step was skipped.")]
struct Options {
    /// How to compute: fp32, bf16, fp16, micikevicius, mellempudi, fp8-hybrid, fp8-delayed, mxfp8, int8, or another preset of
    /// `mantissa recipes`.
    #[arg(long, default_value = "fp8-hybrid")]
    recipe: String,
    /// Epochs to train, those before a resume included.
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Digits in an epoch.
    #[arg(long, default_value_t = 3200)]
    digits: usize,
    /// Digits in a batch.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Batches whose gradients are added up for one update. Burn adds and does not average: see --rate.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// The factor of the learning rate, which rises for 50 applied steps and then falls with the root of their number.
    #[arg(long, default_value_t = 0.16)]
    rate: f64,
    /// The folder of logs and checkpoints.
    #[arg(long, default_value = "runs/digits")]
    out: PathBuf,
    /// Goes on from the checkpoint of this epoch in --out.
    #[arg(long)]
    resume: Option<usize>,
}

impl Objective for Network {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn forward_loss(&self, batch: Batch) -> (Tensor<1>, ClassificationOutput) {
        let output = self.forward(batch.images);
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.targets.clone());
        let item = ClassificationOutput::new(loss.clone(), output, batch.targets);
        (loss, item)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if options.batch == 0 || options.accumulate == 0 || options.digits == 0 {
        return Err("--digits, --batch and --accumulate are at least 1".into());
    }
    if let Some(epoch) = options.resume {
        let checkpoint = options.out.join(format!("checkpoint/model-{epoch}.bpk"));
        if !checkpoint.exists() {
            let checkpoint = checkpoint.display();
            return Err(format!(
                "--resume {epoch}: there is no {checkpoint}; train with the same --out first"
            )
            .into());
        }
    }
    let device = Device::flex().autodiff();
    device.seed(1);
    let network = NetworkConfig::new(10, 64).init(&device);
    let plan = Plan::from_recipe(
        &Recipe::preset(&options.recipe)?,
        &mantissa::sites(&network),
    )?;
    let optimizer = MasterOptimizer::new(AdamWConfig::new()).with_max_norm(5.0);
    let model = MixedPrecision::new(network, plan, optimizer, 42)?;

    let train = Digits::new(0, options.digits).loader(options.batch);
    // Digits that no step sees.
    let valid = Digits::new(1 << 40, 500).loader(100);
    let mut training = SupervisedTraining::new(&options.out, train, valid)
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(model.loss_scale_metric())
        .metric_train_numeric(model.skipped_steps_metric())
        .grads_accumulation(options.accumulate)
        .with_default_checkpointers()
        .num_epochs(options.epochs)
        .summary();
    if let Some(epoch) = options.resume {
        training = training.checkpoint(epoch);
    }
    let model = model.stop_after(20, training.interrupter());
    let schedule = NoamLrSchedulerConfig::new(options.rate)
        .with_warmup_steps(50)
        .with_model_size(64)
        .init()?;
    let result = training.launch(model.into_learner(schedule));

    let progress = result.model.progress();
    println!(
        "{}: {} steps, {} skipped",
        options.recipe, progress.step, progress.skipped
    );
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    if let Some(reason) = result.interrupted.and_then(|stop| stop.reason) {
        eprintln!("stopped: {reason}");
        std::process::exit(3);
    }
    Ok(())
}
