use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::ActivationConfig;
use burn::nn::lstm::LstmState;
use burn::tensor::{Device, Tensor, s};

use super::Lstm;
use crate::nn::time::both_ways;

/// Configuration of a [`BiLstm`] layer, as [`burn::nn::BiLstmConfig`].
#[derive(Config, Debug)]
pub struct BiLstmConfig {
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
    /// The largest magnitude of the cell state. Default: no bound
    pub clip: Option<f64>,
    /// Whether forget gates are one minus the input gates, without parameters of their own. Default: false
    #[config(default = false)]
    pub input_forget: bool,
    /// The activation of the input, forget and output gates. Default: sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// The activation of the candidate cell state. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub cell_activation: ActivationConfig,
    /// The activation of the cell state on its way to the output. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

impl BiLstmConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> BiLstm {
        burn::nn::BiLstmConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_clip(self.clip)
            .with_input_forget(self.input_forget)
            .with_gate_activation(self.gate_activation.clone())
            .with_cell_activation(self.cell_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .init(device)
            .into()
    }
}

/// A long short-term memory in both directions of time: [`burn::nn::BiLstm`] of two [`Lstm`]s.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiLstm {
    /// The memory that reads forward.
    pub forward: Lstm,
    /// The memory that reads backward.
    pub reverse: Lstm,
    /// The size of each direction's hidden state.
    pub d_hidden: usize,
    /// Whether the batch is the first axis of the input; if not, time is.
    pub batch_first: bool,
}

impl From<burn::nn::BiLstm> for BiLstm {
    /// Keeps the parameters and their ids.
    fn from(lstm: burn::nn::BiLstm) -> Self {
        Self {
            forward: lstm.forward.into(),
            reverse: lstm.reverse.into(),
            d_hidden: lstm.d_hidden,
            batch_first: lstm.batch_first,
        }
    }
}

impl ModuleDisplay for BiLstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.forward.input_gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .optional()
    }
}

impl BiLstm {
    /// The hidden states of both directions side by side, and the final states of both, from `state` or zeros.
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
        state: Option<LstmState<3>>,
    ) -> (Tensor<3>, LstmState<3>) {
        let of_direction = |direction: usize| {
            let state = state.clone();
            state.map(|state| state.slice(s![direction]).squeeze_dim(0))
        };
        let (output, states) = both_ways(
            self.batch_first,
            batched_input,
            |input| {
                let reverse = self.forward.reverse;
                self.forward.over_time(input, of_direction(0), reverse)
            },
            |input| self.reverse.over_time(input, of_direction(1), true),
        );
        (output, LstmState::stack(states, 0))
    }
}
