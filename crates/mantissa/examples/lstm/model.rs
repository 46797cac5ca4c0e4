//! A recurrent network that continues sequences. In plain Burn the `mantissa::nn` below reads `burn::nn`; nothing else
//! changes.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor, s};
use mantissa::nn::{Dropout, DropoutConfig, Linear, LinearConfig, Lstm, LstmConfig};

/// Two memories on top of each other and a linear layer that reads the last hidden state.
#[derive(Module, Debug)]
pub struct Predictor {
    lower: Lstm,
    upper: Lstm,
    dropout: Dropout,
    output: Linear,
}

/// Configuration of a [`Predictor`].
#[derive(Config, Debug)]
pub struct PredictorConfig {
    /// Features of one time step.
    pub features: usize,
    /// The size of the hidden states.
    pub hidden: usize,
    /// The dropout rate.
    #[config(default = 0.05)]
    pub dropout: f64,
}

impl PredictorConfig {
    /// A predictor with random weights.
    pub fn init(&self, device: &Device) -> Predictor {
        Predictor {
            lower: LstmConfig::new(self.features, self.hidden, true).init(device),
            upper: LstmConfig::new(self.hidden, self.hidden, true).init(device),
            dropout: DropoutConfig::new(self.dropout).init(),
            output: LinearConfig::new(self.hidden, self.features).init(device),
        }
    }
}

impl Predictor {
    /// The step after the last: `[batch_size, seq_length, features] -> [batch_size, features]`
    pub fn forward(&self, sequence: Tensor<3>) -> Tensor<2> {
        let (x, _) = self.lower.forward(sequence, None);
        let (x, _) = self.upper.forward(self.dropout.forward(x), None);
        let last: Tensor<2> = x.slice(s![.., -1, ..]).squeeze_dim(1);
        self.output.forward(last)
    }
}
