//! How fast a small BERT approaches the best loss that is reachable on the synthetic source.
//!
//! `cargo run --release -p mantissa-zoo --example learning_curve -- [STEPS] [LEARNING_RATE] [SEED] [BATCH] [SEQUENCE]`

use std::time::Instant;

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use mantissa_zoo::{BatchShape, BertConfig, HiddenMarkovConfig, HiddenMarkovSource, MaskedSource};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or(default.into());
    let steps: u64 = argument("500").parse()?;
    let peak: f64 = argument("1.5e-3").parse()?;
    let seed: u64 = argument("1").parse()?;
    let shape = BatchShape {
        batch_size: argument("32").parse()?,
        seq_len: argument("64").parse()?,
    };

    let source = HiddenMarkovSource::new(&HiddenMarkovConfig::default(), shape, 16, seed)?;
    let floor = source.floor().unwrap_or_default();
    let entropy = source.model().unigram_entropy();
    println!(
        "floor {floor:.4}, unigram loss {:.4}, unigram entropy {entropy:.4}",
        source.unigram_loss()
    );

    let device = Device::flex().autodiff();
    let config = BertConfig {
        seq_len: shape.seq_len,
        ..BertConfig::bert_tiny(source.vocab_size())
    };
    let mut model = config.init(seed, &device)?;
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(0.01)
        .with_epsilon(1e-8)
        .init();

    let start = Instant::now();
    let mut stepping = 0.0;
    for step in 0..steps {
        if step % 50 == 0 {
            let above = model.evaluate(source.evaluation()) - floor;
            println!(
                "step {step:5}  {:6.1} s  {above:.4} above the floor",
                start.elapsed().as_secs_f64()
            );
        }
        let begun = Instant::now();
        let loss = model.forward_loss(&source.batch(step));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(learning_rate(step, steps, peak), model, gradients);
        stepping += begun.elapsed().as_secs_f64();
    }
    let above = model.evaluate(source.evaluation()) - floor;
    println!(
        "step {steps:5}  {:6.1} s  {above:.4} above the floor",
        start.elapsed().as_secs_f64()
    );
    println!("{:.1} ms a step", 1e3 * stepping / steps.max(1) as f64);
    Ok(())
}

/// Linear warm-up over a tenth of the run, then linear decay to a tenth of the peak.
fn learning_rate(step: u64, steps: u64, peak: f64) -> f64 {
    let warm_up = (steps / 10).max(1);
    if step < warm_up {
        peak * (step + 1) as f64 / warm_up as f64
    } else {
        let left = (steps - step) as f64 / (steps - warm_up).max(1) as f64;
        peak * (0.1 + 0.9 * left)
    }
}
