//! The examples' models are plain Burn programs but for their `use` lines: here `mantissa` is a name of Burn.

extern crate burn as mantissa;

use burn::tensor::{Bool, Device, Int, Tensor};

#[path = "../examples/lstm/model.rs"]
mod lstm;
#[path = "../examples/mnist/model.rs"]
mod mnist;
#[path = "../examples/text_classification/model.rs"]
mod text_classification;

#[test]
fn examples_are_plain_burn_programs() {
    let device = Device::flex();
    let network = mnist::NetworkConfig::new(10, 16).init(&device);
    let images = Tensor::zeros([2, 28, 28], &device);
    assert_eq!(network.forward(images).dims(), [2, 10]);

    let encoder = burn::nn::transformer::TransformerEncoderConfig::new(8, 16, 2, 1);
    let classifier = text_classification::ClassifierConfig::new(20, 6, 2, encoder).init(&device);
    let words = Tensor::<2, Int>::zeros([3, 6], &device);
    let padding = Tensor::<2, Bool>::empty([3, 6], &device);
    assert_eq!(classifier.forward(words, padding).dims(), [3, 2]);

    let predictor = lstm::PredictorConfig::new(1, 8).init(&device);
    let waves = Tensor::zeros([4, 5, 1], &device);
    assert_eq!(predictor.forward(waves).dims(), [4, 1]);
}
