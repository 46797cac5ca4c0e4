//! What is drawn at random: weights as Burn draws them, and masks that a seed decides.

mod seeded;

use burn::tensor::{Device, Tensor};
use mantissa::plan::{Plan, Recipe};
use mantissa::{Session, nn};

use crate::seeded::seeded;

fn device() -> Device {
    Device::flex().autodiff()
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    let data = tensor.into_data();
    data.iter::<f32>().map(f32::to_bits).collect()
}

#[test]
fn dropout_draws_the_same_mask_backward_and_for_the_same_seed() {
    let device = device();
    let layer = seeded(0, || {
        let layer = nn::LinearConfig::new(4, 3).init(&device);
        let _ = layer.weight.val();
        layer
    });
    let plan = Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &mantissa::sites(&layer));
    let session = Session::bind(&layer, &plan.unwrap(), 1).unwrap();
    let dropout = nn::DropoutConfig::new(0.25).init();
    let x = Tensor::<1>::ones([4096], &device).require_grad();
    let drop = || seeded(9, || session.autocast(|| dropout.forward(x.clone())));
    let dropped = drop();
    assert_eq!(bits(dropped.clone()), bits(drop()));
    let gradient = x.grad(&dropped.clone().sum().backward()).unwrap();
    assert_eq!(bits(gradient), bits(dropped.clone()));
    let kept: f32 = dropped.greater_elem(0.0).float().mean().into_scalar();
    // Five standard deviations of a share of 4096 draws.
    assert!(
        (kept - 0.75).abs() < 5.0 * (0.25_f32 * 0.75 / 4096.0).sqrt(),
        "{kept}"
    );
}

#[test]
fn the_same_seed_initializes_the_same_weights() {
    let device = device();
    let initialized = |make: &dyn Fn() -> Tensor<2>| bits(seeded(3, make));
    let plain = initialized(&|| burn::nn::LinearConfig::new(6, 4).init(&device).weight.val());
    let mixed = initialized(&|| nn::LinearConfig::new(6, 4).init(&device).weight.val());
    assert_eq!(plain, mixed);
}
