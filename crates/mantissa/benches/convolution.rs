//! A convolution's forward and backward pass under several recipes, as a ratio to Burn's own in full precision.
//!
//! `cargo bench --workspace --bench convolution`

use std::time::{Duration, Instant};

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use mantissa::nn::conv::{Conv2d, Conv2dConfig};
use mantissa::plan::{Plan, Recipe};
use mantissa::{Kernels, Session};

const ROUNDS: usize = 9;
const RECIPES: [&str; 4] = ["fp32", "bf16", "fp8-hybrid", "int8"];

/// Channels in and out, kernel, stride, and the size of 8 square images.
const LAYERS: [(usize, usize, usize, usize, usize); 4] = [
    (3, 32, 3, 1, 32),
    (64, 64, 3, 1, 28),
    (128, 128, 3, 2, 14),
    (128, 256, 1, 1, 14),
];
const BATCH: usize = 8;

fn main() {
    println!(
        "convolution                   Burn ms    {}",
        RECIPES.join("  ")
    );
    for (channels_in, channels_out, kernel, stride, size) in LAYERS {
        let device = Device::flex().autodiff();
        let layer: Conv2d = Conv2dConfig::new([channels_in, channels_out], [kernel; 2])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Same)
            .init(&device);
        let shape = [BATCH, channels_in, size, size];
        let input = Tensor::random(shape, Distribution::Default, &device).require_grad();
        let sessions = RECIPES.map(|recipe| {
            let recipe = Recipe::preset(recipe).expect("a recipe");
            let plan = Plan::from_recipe(&recipe, &mantissa::sites(&layer)).expect("a plan");
            let session = Session::bind(&layer, &plan, 0).expect("the layer's plan");
            session.set_kernels(Kernels::Fused);
            session
        });

        let mut burns = Vec::new();
        let mut ours = RECIPES.map(|_| Vec::new());
        for round in 0..ROUNDS as u64 {
            burns.push(timed(|| layer.forward(input.clone())));
            for (session, times) in sessions.iter().zip(&mut ours) {
                session.begin_step(round);
                times.push(timed(|| session.autocast(|| layer.forward(input.clone()))));
            }
        }
        let limit = median(&mut burns);
        let ratios = ours.map(|mut times| median(&mut times) / limit);
        let ratios = ratios.map(|ratio| format!("{ratio:.2}")).join("  ");
        let name =
            format!("{channels_in} to {channels_out}, {kernel}x{kernel}/{stride}, {size}x{size}");
        println!("{name:28} {:8.2}    {ratios}", limit * 1e3);
    }
}

/// Forward and backward.
fn timed(forward: impl FnOnce() -> Tensor<4>) -> Duration {
    let started = Instant::now();
    let gradients = forward().powi_scalar(2).sum().backward();
    let elapsed = started.elapsed();
    drop(gradients);
    elapsed
}

/// In seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}
