//! A convolutional network learns digits in 8-bit floating point: `cargo run --release --example mnist`.

mod digits;
mod model;
#[path = "../training/mod.rs"]
mod training;

use std::error::Error;

use burn::tensor::{Device, Int, Tensor};
use mantissa::nn::loss::CrossEntropyLossConfig;

use model::{Network, NetworkConfig};
use training::{Run, train};

const STEPS: u64 = 120;
const BATCH: usize = 32;
const TEST: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    for recipe in ["fp32", "fp8-hybrid"] {
        println!("{}", run(recipe)?);
    }
    Ok(())
}

/// Trains and tests a network under `recipe`; all recipes start from the same weights and see the same digits.
pub fn run(recipe: &'static str) -> Result<Run, Box<dyn Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let network = NetworkConfig::new(10, 64).init(&device);
    let loss = CrossEntropyLossConfig::new().init(&device);
    train(
        network,
        recipe,
        STEPS,
        3e-3,
        |network, step| {
            let (images, targets) = digits::batch(step * BATCH as u64, BATCH, &device);
            loss.forward(network.forward(images), targets)
        },
        |network| accuracy(network, &Device::flex()),
    )
}

/// The share of digits that no step has seen and the network gets right.
fn accuracy(network: &Network, device: &Device) -> f32 {
    let (images, targets) = digits::batch(1 << 40, TEST, device);
    let found: Tensor<1, Int> = network.forward(images).argmax(1).flatten(0, 1);
    found.equal(targets).float().mean().into_scalar()
}
