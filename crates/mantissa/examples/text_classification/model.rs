//! A transformer that reads texts. In plain Burn the two `mantissa::nn` below read `burn::nn`; nothing else changes.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, s};
use mantissa::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use mantissa::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};

/// An encoder whose first position tells the class.
#[derive(Module, Debug)]
pub struct Classifier {
    tokens: Embedding,
    positions: Embedding,
    encoder: TransformerEncoder,
    output: Linear,
}

/// Configuration of a [`Classifier`].
#[derive(Config, Debug)]
pub struct ClassifierConfig {
    /// Words that it knows.
    pub vocabulary: usize,
    /// The longest text.
    pub length: usize,
    /// Classes to tell apart.
    pub classes: usize,
    /// The transformer.
    pub encoder: TransformerEncoderConfig,
}

impl ClassifierConfig {
    /// A classifier with random weights.
    pub fn init(&self, device: &Device) -> Classifier {
        let width = self.encoder.d_model;
        Classifier {
            tokens: EmbeddingConfig::new(self.vocabulary, width).init(device),
            positions: EmbeddingConfig::new(self.length, width).init(device),
            encoder: self.encoder.init(device),
            output: LinearConfig::new(width, self.classes).init(device),
        }
    }
}

impl Classifier {
    /// `[batch_size, length] -> [batch_size, classes]`; `padding` is true where there is no word.
    pub fn forward(&self, words: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let [_, length] = words.dims();
        let positions = Tensor::arange(0..length as i64, &words.device()).unsqueeze();
        let x = self.tokens.forward(words) + self.positions.forward(positions);
        let input = TransformerEncoderInput::new(x).mask_pad(padding);
        let encoded = self.encoder.forward(input);
        let first: Tensor<2> = encoded.slice(s![.., 0, ..]).squeeze_dim(1);
        self.output.forward(first)
    }
}
