//! The time of a whole training step under each recipe, as a ratio to plain Burn's f32 step in the same run.
//!
//! `cargo bench -p mantissa-zoo --bench step -- [tiny|mini] [ROUNDS] [THREADS]`: each round takes one step of every
//! variant in turn, so that all of them meet the same disturbances; the ratio is that of the medians.

use std::time::Instant;

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use mantissa::optimizer::MasterOptimizer;
use mantissa::plan::{Plan, Recipe};
use mantissa::profiler::ProfilerConfig;
use mantissa::{LossScaler, Session};
use mantissa_zoo::{
    BatchShape, BertConfig, HiddenMarkovConfig, HiddenMarkovSource, MaskedBatch, MaskedSource,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECIPES: [&str; 5] = ["fp32", "bf16", "fp16", "fp8-hybrid", "int8"];
const LEARNING_RATE: f64 = 1e-3;

fn main() {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let number = |i: usize, default| {
        arguments
            .get(i)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let mini = arguments.first().is_none_or(|size| size == "mini");
    let (rounds, threads) = (number(1, 7), number(2, 1));
    let (config, batch_size) = if mini {
        (BertConfig::bert_mini(4096), 16)
    } else {
        (BertConfig::bert_tiny(1024), 32)
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads can be started");
    println!(
        "{} layers, width {}, sequences of {}, batch {batch_size}, vocabulary {}, AdamW; {rounds} rounds, {threads} threads",
        config.n_layers, config.d_model, config.seq_len, config.vocab_size
    );
    pool.install(|| measure(&config, batch_size, rounds));
}

/// Takes the step of this number on a batch.
type StepFn = Box<dyn FnMut(u64, &MaskedBatch)>;

/// One way to train, ready for its next step.
struct Variant {
    name: String,
    step: StepFn,
    seconds: Vec<f64>,
}

fn measure(config: &BertConfig, batch_size: usize, rounds: usize) {
    let shape = BatchShape {
        batch_size,
        seq_len: config.seq_len,
    };
    let source = HiddenMarkovSource::new(&HiddenMarkovConfig::default(), shape, 1, 0)
        .expect("the default language");
    let mut variants = vec![plain(config)];
    variants.extend(RECIPES.map(|recipe| mixed(config, recipe, false)));
    variants.push(mixed(config, "fp32", true));

    for round in 0..=rounds as u64 {
        let batch = source.batch(round);
        for variant in &mut variants {
            let started = Instant::now();
            (variant.step)(round, &batch);
            // The first round warms up.
            if round > 0 {
                variant.seconds.push(started.elapsed().as_secs_f64());
            }
        }
    }

    let reference = median(&mut variants[0].seconds);
    println!("{:<22} {:>8} {:>22}", "step", "ms", "ratio to Burn's f32");
    for variant in &mut variants {
        let median = median(&mut variant.seconds);
        println!(
            "{:<22} {:>8.0} {:>22.2}",
            variant.name,
            1e3 * median,
            median / reference
        );
    }
}

fn plain(config: &BertConfig) -> Variant {
    let mut model = config
        .init_plain(0, &Device::flex().autodiff())
        .expect("a preset");
    let mut optimizer: ModuleOptimizer = AdamWConfig::new().init();
    Variant {
        name: "Burn".to_owned(),
        step: Box::new(move |_, batch| {
            let gradients = model.forward_loss(batch).backward();
            let gradients = GradientsParams::from_grads(gradients, &model);
            model = optimizer.step(LEARNING_RATE, model.clone(), gradients);
        }),
        seconds: Vec::new(),
    }
}

fn mixed(config: &BertConfig, recipe: &str, profiled: bool) -> Variant {
    let mut model = config
        .init(0, &Device::flex().autodiff())
        .expect("a preset");
    let recipe_plan = Plan::from_recipe(
        &Recipe::preset(recipe).expect("a preset"),
        &mantissa::sites(&model),
    );
    let plan = recipe_plan.expect("presets apply to every model");
    let session = Session::bind(&model, &plan, 0).expect("the plan is of this model");
    if profiled {
        session.start_profiling(ProfilerConfig {
            every: 1,
            ..ProfilerConfig::default()
        });
    }
    let mut scaler = LossScaler::for_plan(&plan);
    let mut optimizer = MasterOptimizer::new(AdamWConfig::new().init()).with_session(&session);
    Variant {
        name: if profiled {
            format!("{recipe}, profiled")
        } else {
            recipe.to_owned()
        },
        step: Box::new(move |step, batch| {
            session.begin_step(step);
            let loss = session.autocast(|| model.forward_loss(batch));
            let gradients = scaler.scale(loss).backward();
            let _ = optimizer.step(LEARNING_RATE, &mut model, gradients, &mut scaler);
        }),
        seconds: Vec::new(),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
