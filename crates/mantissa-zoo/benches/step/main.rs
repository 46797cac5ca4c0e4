//! The time and the memory of a whole training step under each recipe, as ratios to plain Burn's f32 step.
//!
//! `cargo bench --workspace --bench step -- --help`. The loss reads the predictions at every position, so that a step of
//! the default size takes 54.8 GFLOP of products. Each round takes one step of every variant in turn, so that all of
//! them meet the same disturbances; ratios are of medians. On one thread CPU time is compared, on more the time that
//! passes. Memory is the largest resident set of a process of its own that takes a few steps of one variant.

mod clock;
mod memory;
mod variant;

use clap::{Parser, ValueEnum};
use mantissa_zoo::{
    BatchShape, BertConfig, HiddenMarkovConfig, HiddenMarkovSource, MaskedBatch, MaskedSource,
};

use clock::Clock;
use variant::{RECIPES, Variant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares training steps of a BERT with those of plain Burn.
#[derive(Parser)]
struct Arguments {
    /// The network: bert-tiny (2 layers, width 128) or bert-mini (4 layers, width 256).
    #[arg(long, value_enum, default_value = "mini")]
    size: Size,
    /// Sequences of a batch [default: 32 for tiny, 16 for mini; 64 for memory]
    #[arg(long)]
    batch: Option<usize>,
    /// Measured steps of each variant.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Numbers of threads to measure with, one table each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Variants to measure beside plain Burn [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Positions whose tokens are predicted.
    #[arg(long, value_enum, default_value = "every")]
    predict: Predict,
    /// Measure time, memory, or both.
    #[arg(long, value_enum, default_value = "both")]
    measure: Measure,
    /// Print one JSON object for each variant and number of threads instead of tables; time only.
    #[arg(long)]
    json: bool,
    /// Take a few steps of one variant and print the peak of resident memory in bytes.
    #[arg(long, hide = true)]
    peak_of: Option<String>,
    /// Cargo passes this one.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Size {
    Tiny,
    Mini,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Predict {
    /// Every position, the size of step that others publish.
    Every,
    /// The masked ones, as in training.
    Masked,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Measure {
    Time,
    Memory,
    Both,
}

/// What is trained on what.
#[derive(Clone)]
struct Task {
    config: BertConfig,
    batch_size: usize,
    predict: Predict,
}

impl Task {
    fn new(size: Size, batch_size: usize, predict: Predict) -> Self {
        let config = match size {
            Size::Tiny => BertConfig::bert_tiny(1024),
            Size::Mini => BertConfig::bert_mini(4096),
        };
        Self {
            config,
            batch_size,
            predict,
        }
    }

    fn batches(&self) -> Batches {
        let shape = BatchShape {
            batch_size: self.batch_size,
            seq_len: self.config.seq_len,
        };
        Batches {
            source: HiddenMarkovSource::new(&HiddenMarkovConfig::default(), shape, 1, 0)
                .expect("the default language"),
            predict: self.predict,
        }
    }

    fn describe(&self) -> String {
        let config = &self.config;
        format!(
            "{} layers, width {}, sequences of {}, batch {}, vocabulary {}, predictions at {} position, AdamW",
            config.n_layers,
            config.d_model,
            config.seq_len,
            self.batch_size,
            config.vocab_size,
            possible(self.predict)
        )
    }
}

/// What the steps of one measurement read.
struct Batches {
    source: HiddenMarkovSource,
    predict: Predict,
}

impl Batches {
    fn batch(&self, step: u64) -> MaskedBatch {
        let mut batch = self.source.batch(step);
        if self.predict == Predict::Every {
            batch.positions = (0..).take(batch.tokens.len()).collect();
            batch.targets = batch.tokens.clone();
        }
        batch
    }
}

fn main() {
    let arguments = Arguments::parse();
    let usual = match arguments.size {
        Size::Tiny => 32,
        Size::Mini => 16,
    };
    let timed = Task::new(
        arguments.size,
        arguments.batch.unwrap_or(usual),
        arguments.predict,
    );
    let large = Task::new(
        arguments.size,
        arguments.batch.unwrap_or(64),
        arguments.predict,
    );
    if let Some(name) = &arguments.peak_of {
        return memory::print_peak(&large, name);
    }
    let names: Vec<&str> = RECIPES
        .into_iter()
        .filter(|name| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name))
        .collect();
    if arguments.measure != Measure::Memory {
        for &threads in &arguments.threads {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads can be started");
            let times = pool.install(|| Times::measure(&timed, &names, threads, arguments.rounds));
            if arguments.json {
                times.print_json();
            } else {
                println!("\n{}; {} rounds", timed.describe(), arguments.rounds);
                times.print_table();
            }
        }
    }
    if arguments.measure != Measure::Time && !arguments.json {
        memory::compare(&large, &names, &possible(arguments.size));
    }
}

/// Medians over the rounds, in seconds.
struct Times {
    threads: usize,
    clock: Clock,
    /// Plain Burn's first.
    steps: Vec<(String, f64)>,
    /// A step of the last variant whose operands are all measured.
    profiled: f64,
}

impl Times {
    fn measure(task: &Task, names: &[&str], threads: usize, rounds: u64) -> Self {
        let clock = Clock::for_threads(threads);
        let mut variants = vec![Variant::burn(task)];
        variants.extend(names.iter().map(|name| Variant::mantissa(task, name)));
        let batches = task.batches();
        let mut seconds = vec![Vec::new(); variants.len()];
        let mut profiled = Vec::new();
        for round in 0..=rounds {
            let batch = batches.batch(round);
            let mut times: Vec<f64> = Vec::new();
            for variant in &mut variants {
                times.push(clock.time(|| variant.step(&batch)));
            }
            let last = variants.len() - 1;
            let measured = clock.time(|| variants[last].profiled_step(&batch));
            // The first round warms up.
            if round > 0 {
                profiled.push(measured);
                for (all, time) in seconds.iter_mut().zip(times) {
                    all.push(time);
                }
            }
        }
        let names = variants.iter().map(|variant| variant.name().to_owned());
        Self {
            threads,
            clock,
            steps: names.zip(seconds.into_iter().map(median)).collect(),
            profiled: median(profiled),
        }
    }

    fn print_table(&self) {
        println!("{} threads, {}", self.threads, self.clock.name());
        println!("{:<22} {:>8} {:>22}", "step", "ms", "ratio to Burn's f32");
        for (name, seconds) in &self.steps {
            let ratio = seconds / self.steps[0].1;
            println!("{name:<22} {:>8.0} {ratio:>22.3}", 1e3 * seconds);
        }
        let (name, seconds) = &self.steps[self.steps.len() - 1];
        let more = 100.0 * (self.profiled / seconds - 1.0);
        let every = variant::PROFILED_EVERY;
        println!(
            "measuring {name}: {more:.0} % more for a measured step, {:.1} % with every {every}th measured",
            more / every as f64
        );
    }

    fn print_json(&self) {
        for (name, seconds) in &self.steps {
            let (name, threads, milliseconds) = (name, self.threads, 1e3 * seconds);
            println!(r#"{{"step":"{name}","threads":{threads},"milliseconds":{milliseconds:.3}}}"#);
        }
    }
}

/// How the command line spells a value.
fn possible(value: impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no value is hidden");
    value.get_name().to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
