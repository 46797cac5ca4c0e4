//! A recurrent network learns how waves go on in 8-bit floating point: `cargo run --release --example lstm`.

mod model;
#[path = "../training/mod.rs"]
mod training;
mod waves;

use std::error::Error;

use burn::tensor::Device;
use mantissa::nn::loss::{MseLoss, Reduction};

use model::{Predictor, PredictorConfig};
use training::{Run, train};

const STEPS: u64 = 150;
const BATCH: usize = 32;
const TEST: usize = 500;
/// How far a prediction may be off to count as right, where waves are 0.4 to 1 high.
const TOLERANCE: f32 = 0.1;

fn main() -> Result<(), Box<dyn Error>> {
    for recipe in ["fp32", "fp8-hybrid"] {
        println!("{}", run(recipe)?);
    }
    Ok(())
}

/// Trains and tests a predictor under `recipe`; all recipes start from the same weights and see the same waves.
pub fn run(recipe: &'static str) -> Result<Run, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let predictor = PredictorConfig::new(1, 32).init(&device);
    train(
        predictor,
        recipe,
        STEPS,
        5e-3,
        |predictor, step| {
            let (seen, next) = waves::batch(step * BATCH as u64, BATCH, &device);
            MseLoss::new().forward(predictor.forward(seen), next, Reduction::Mean)
        },
        |predictor| accuracy(predictor, &Device::flex()),
    )
}

/// The share of waves that no step has seen and whose next step the predictor gets right.
fn accuracy(predictor: &Predictor, device: &Device) -> f32 {
    let (seen, next) = waves::batch(1 << 40, TEST, device);
    let error = (predictor.forward(seen) - next).abs();
    error.lower_elem(TOLERANCE).float().mean().into_scalar()
}
