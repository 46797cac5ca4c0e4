//! A convolutional network for digits. In plain Burn the two `mantissa::nn` below read `burn::nn`; nothing else changes.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mantissa::nn::conv::{Conv2d, Conv2dConfig};
use mantissa::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, Relu,
    pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig},
};

/// Two convolutions and two linear layers.
#[derive(Module, Debug)]
pub struct Network {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    pool: AdaptiveAvgPool2d,
    dropout: Dropout,
    linear1: Linear,
    linear2: Linear,
    activation: Relu,
}

/// Configuration of a [`Network`].
#[derive(Config, Debug)]
pub struct NetworkConfig {
    /// Classes to tell apart.
    pub classes: usize,
    /// Features between the linear layers.
    pub hidden: usize,
    /// The dropout rate.
    #[config(default = 0.25)]
    pub dropout: f64,
}

impl NetworkConfig {
    /// A network with random weights.
    pub fn init(&self, device: &Device) -> Network {
        Network {
            conv1: Conv2dConfig::new([1, 8], [3, 3]).init(device),
            norm1: BatchNormConfig::new(8).init(device),
            conv2: Conv2dConfig::new([8, 16], [3, 3])
                .with_stride([2, 2])
                .init(device),
            norm2: BatchNormConfig::new(16).init(device),
            pool: AdaptiveAvgPool2dConfig::new([6, 6]).init(),
            dropout: DropoutConfig::new(self.dropout).init(),
            linear1: LinearConfig::new(16 * 6 * 6, self.hidden).init(device),
            linear2: LinearConfig::new(self.hidden, self.classes).init(device),
            activation: Relu::new(),
        }
    }
}

impl Network {
    /// `[batch_size, height, width] -> [batch_size, classes]`
    pub fn forward(&self, images: Tensor<3>) -> Tensor<2> {
        let x = images.unsqueeze_dim(1);
        let x = self.norm1.forward(self.conv1.forward(x));
        let x = self.activation.forward(x);
        let x = self.norm2.forward(self.conv2.forward(x));
        let x = self.activation.forward(x);
        let x = self.pool.forward(x).flatten::<2>(1, 3);
        let x = self.linear1.forward(self.dropout.forward(x));
        let x = self.activation.forward(self.dropout.forward(x));
        self.linear2.forward(x)
    }
}
