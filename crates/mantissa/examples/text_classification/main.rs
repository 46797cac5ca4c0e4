//! A transformer learns what news are about in 8-bit floating point: `cargo run --release --example text_classification`.

mod model;
mod news;
#[path = "../training/mod.rs"]
mod training;

use std::error::Error;

use burn::tensor::{Device, Int, Tensor};
use mantissa::nn::loss::CrossEntropyLossConfig;
use mantissa::nn::transformer::TransformerEncoderConfig;

use model::{Classifier, ClassifierConfig};
use training::{Run, train};

const STEPS: u64 = 150;
const BATCH: usize = 32;
const TEST: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    for recipe in ["fp32", "fp8-hybrid"] {
        println!("{}", run(recipe)?);
    }
    Ok(())
}

/// Trains and tests a classifier under `recipe`; all recipes start from the same weights and see the same news.
pub fn run(recipe: &'static str) -> Result<Run, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let encoder = TransformerEncoderConfig::new(32, 64, 4, 2).with_norm_first(true);
    let (vocabulary, kinds) = (news::vocabulary().len(), news::KINDS.len());
    let classifier = ClassifierConfig::new(vocabulary, news::LENGTH, kinds, encoder).init(&device);
    let loss = CrossEntropyLossConfig::new().init(&device);
    train(
        classifier,
        recipe,
        STEPS,
        2e-3,
        |classifier, step| {
            let batch = news::batch(step * BATCH as u64, BATCH, &device);
            let found = classifier.forward(batch.words, batch.padding);
            loss.forward(found, batch.kinds)
        },
        |classifier| accuracy(classifier, &Device::flex()),
    )
}

/// The share of news that no step has seen and the classifier gets right.
fn accuracy(classifier: &Classifier, device: &Device) -> f32 {
    let batch = news::batch(1 << 40, TEST, device);
    let found = classifier.forward(batch.words, batch.padding);
    let found: Tensor<1, Int> = found.argmax(1).flatten(0, 1);
    found.equal(batch.kinds).float().mean().into_scalar()
}
