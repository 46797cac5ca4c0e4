use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::activation::ActivationConfig;
use burn::nn::{Initializer, RnnState};
use burn::tensor::{Device, Tensor, s};

use super::Rnn;
use crate::nn::time::both_ways;

/// Configuration of a [`BiRnn`] layer, as [`burn::nn::BiRnnConfig`].
#[derive(Config, Debug)]
pub struct BiRnnConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of each direction's hidden state.
    pub d_hidden: usize,
    /// Whether gates have biases.
    pub bias: bool,
    /// How parameters are initialized. Default: Xavier normal
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the batch is the first axis of the input; if not, time is. Default: true
    #[config(default = true)]
    pub batch_first: bool,
    /// The largest magnitude of the hidden state. Default: no bound
    pub clip: Option<f64>,
    /// The activation of the hidden state. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

impl BiRnnConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> BiRnn {
        burn::nn::BiRnnConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_clip(self.clip)
            .with_hidden_activation(self.hidden_activation.clone())
            .init(device)
            .into()
    }
}

/// A recurrent layer without memory cells in both directions of time: [`burn::nn::BiRnn`] of two [`Rnn`]s.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiRnn {
    /// The layer that reads forward.
    pub forward: Rnn,
    /// The layer that reads backward.
    pub reverse: Rnn,
    /// The size of each direction's hidden state.
    pub d_hidden: usize,
    /// Whether the batch is the first axis of the input; if not, time is.
    pub batch_first: bool,
}

impl From<burn::nn::BiRnn> for BiRnn {
    /// Keeps the parameters and their ids.
    fn from(rnn: burn::nn::BiRnn) -> Self {
        Self {
            forward: rnn.forward.into(),
            reverse: rnn.reverse.into(),
            d_hidden: rnn.d_hidden,
            batch_first: rnn.batch_first,
        }
    }
}

impl ModuleDisplay for BiRnn {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.forward.gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .optional()
    }
}

impl BiRnn {
    /// The hidden states of both directions side by side, and the final ones of both, from `state` or zeros.
    ///
    /// # Shapes
    /// - input: `[batch_size, seq_length, d_input]`, or time first if not `batch_first`
    /// - output: `[batch_size, seq_length, 2 * d_hidden]`, or time first
    /// - states: `[2, batch_size, d_hidden]`
    ///
    /// # Panics
    /// If the shapes disagree with those above.
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<RnnState<3>>,
    ) -> (Tensor<3>, RnnState<3>) {
        let of_direction = |direction: usize| {
            let state = state.as_ref()?.hidden.clone();
            Some(RnnState::new(
                state.slice(s![direction, .., ..]).squeeze_dim(0),
            ))
        };
        let (output, states) = both_ways(
            self.batch_first,
            batched_input,
            |input| self.forward.over_time(input, of_direction(0), false),
            |input| self.reverse.over_time(input, of_direction(1), true),
        );
        let states = states.into_iter().map(|state| state.hidden).collect();
        (output, RnnState::new(Tensor::stack(states, 0)))
    }
}
