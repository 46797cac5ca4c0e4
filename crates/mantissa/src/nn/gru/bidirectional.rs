use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::ActivationConfig;
use burn::tensor::{Device, Tensor, s};

use super::Gru;
use crate::nn::time::both_ways;

/// Configuration of a [`BiGru`] layer, as [`burn::nn::BiGruConfig`].
#[derive(Config, Debug)]
pub struct BiGruConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of each direction's hidden state.
    pub d_hidden: usize,
    /// Whether gates have biases.
    pub bias: bool,
    /// Whether reset gates act on the transformed hidden state. Default: true
    #[config(default = "true")]
    pub reset_after: bool,
    /// How parameters are initialized. Default: Xavier normal
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the batch is the first axis of the input; if not, time is. Default: true
    #[config(default = true)]
    pub batch_first: bool,
    /// The activation of the update and reset gates. Default: sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// The activation of the candidate. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// The largest magnitude of the hidden state. Default: no bound
    pub clip: Option<f64>,
}

impl BiGruConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> BiGru {
        burn::nn::BiGruConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_reset_after(self.reset_after)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_gate_activation(self.gate_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .with_clip(self.clip)
            .init(device)
            .into()
    }
}

/// A gated recurrent unit in both directions of time: [`burn::nn::BiGru`] of two [`Gru`]s.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiGru {
    /// The unit that reads forward.
    pub forward: Gru,
    /// The unit that reads backward.
    pub reverse: Gru,
    /// The size of each direction's hidden state.
    pub d_hidden: usize,
    /// Whether the batch is the first axis of the input; if not, time is.
    pub batch_first: bool,
}

impl From<burn::nn::BiGru> for BiGru {
    /// Keeps the parameters and their ids.
    fn from(gru: burn::nn::BiGru) -> Self {
        Self {
            forward: gru.forward.into(),
            reverse: gru.reverse.into(),
            d_hidden: gru.d_hidden,
            batch_first: gru.batch_first,
        }
    }
}

impl ModuleDisplay for BiGru {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.forward.update_gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .optional()
    }
}

impl BiGru {
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
        state: Option<Tensor<3>>,
    ) -> (Tensor<3>, Tensor<3>) {
        let of_direction = |direction: usize| {
            let state = state.clone();
            state.map(|state| state.slice(s![direction, .., ..]).squeeze_dim(0))
        };
        let (output, states) = both_ways(
            self.batch_first,
            batched_input,
            |input| self.forward.over_time(input, of_direction(0), false),
            |input| self.reverse.over_time(input, of_direction(1), true),
        );
        (output, Tensor::stack(states, 0))
    }
}
