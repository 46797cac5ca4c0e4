//! [`burn::nn::loss`], with a [`CrossEntropyLoss`] that is one fused operation inside an autocast.

pub use burn::nn::loss::*;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, assert_shape};

use crate::{fused, session};

/// Configuration of [`CrossEntropyLoss`], as [`burn::nn::loss::CrossEntropyLossConfig`].
#[derive(Config, Debug)]
pub struct CrossEntropyLossConfig {
    /// Targets that do not count. Default: none
    pub pad_tokens: Option<Vec<usize>>,
    /// The weight of each class. Default: all one
    pub weights: Option<Vec<f32>>,
    /// The share of a target's probability that is spread over all classes. Default: none
    pub smoothing: Option<f32>,
    /// Whether the input is logits, not probabilities. Default: true
    #[config(default = true)]
    pub logits: bool,
}

impl CrossEntropyLossConfig {
    /// Initializes the loss.
    ///
    /// # Panics
    /// If a weight is not positive or the smoothing not in `[0, 1]`.
    pub fn init(&self, device: &Device) -> CrossEntropyLoss {
        let loss = burn::nn::loss::CrossEntropyLossConfig::new()
            .with_pad_tokens(self.pad_tokens.clone())
            .with_weights(self.weights.clone())
            .with_smoothing(self.smoothing)
            .with_logits(self.logits)
            .init(device);
        CrossEntropyLoss { loss }
    }
}

/// Mean cross-entropy, as [`burn::nn::loss::CrossEntropyLoss`]; fused where it is of logits without padding, weights
/// and smoothing.
#[derive(Module, Debug)]
pub struct CrossEntropyLoss {
    loss: burn::nn::loss::CrossEntropyLoss,
}

impl CrossEntropyLoss {
    /// A loss of logits that ignores `pad_index`.
    pub fn new(pad_index: Option<usize>, device: &Device) -> Self {
        CrossEntropyLossConfig::new()
            .with_pad_tokens(pad_index.map(|index| vec![index]))
            .init(device)
    }

    /// The mean over all targets, in nats.
    ///
    /// # Shapes
    /// - logits: `[batch_size, num_classes]`
    /// - targets: `[batch_size]`
    ///
    /// # Panics
    /// If the shapes disagree, or a target is not a class.
    pub fn forward(&self, logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let plain = self.loss.logits
            && self.loss.pad_tokens.is_none()
            && self.loss.weights.is_none()
            && self.loss.smoothing.is_none();
        if !(plain && session::is_fused()) {
            return self.loss.forward(logits, targets);
        }
        let [batch_size, _] = logits.dims();
        assert_shape!(targets, [batch_size]);
        fused::cross_entropy(logits, targets)
    }
}
