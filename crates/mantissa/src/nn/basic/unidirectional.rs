use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::activation::{Activation, ActivationConfig};
use burn::nn::{Initializer, RnnState};
use burn::tensor::{Device, Tensor};

use crate::nn::activation::activate;
use crate::nn::gate_controller::GateController;
use crate::nn::time::{self, swapped_unless};

/// Configuration of an [`Rnn`] layer, as [`burn::nn::RnnConfig`].
#[derive(Config, Debug)]
pub struct RnnConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the gate has biases.
    pub bias: bool,
    /// How parameters are initialized. Default: Xavier normal
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the batch is the first axis of the input; if not, time is. Default: true
    #[config(default = true)]
    pub batch_first: bool,
    /// Whether time is read backward. Default: false
    #[config(default = false)]
    pub reverse: bool,
    /// The largest magnitude of the hidden state. Default: no bound
    pub clip: Option<f64>,
    /// The activation of the hidden state. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

impl RnnConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> Rnn {
        burn::nn::RnnConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_reverse(self.reverse)
            .with_clip(self.clip)
            .with_hidden_activation(self.hidden_activation.clone())
            .init(device)
            .into()
    }
}

/// A recurrent layer without memory cells, two sites: [`burn::nn::Rnn`] whose products follow the current autocast.
///
/// Everything between the products stays in full precision.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Rnn {
    /// What the hidden state becomes, before the activation.
    pub gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch is the first axis of the input; if not, time is.
    pub batch_first: bool,
    /// Whether time is read backward.
    pub reverse: bool,
    /// The largest magnitude of the hidden state.
    pub clip: Option<f64>,
    /// The activation of the hidden state.
    pub hidden_activation: Activation,
}

impl From<burn::nn::Rnn> for Rnn {
    /// Keeps the parameters and their ids.
    fn from(rnn: burn::nn::Rnn) -> Self {
        Self {
            gate: rnn.gate.into(),
            d_hidden: rnn.d_hidden,
            batch_first: rnn.batch_first,
            reverse: rnn.reverse,
            clip: rnn.clip,
            hidden_activation: rnn.hidden_activation,
        }
    }
}

impl ModuleDisplay for Rnn {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .optional()
    }
}

impl Rnn {
    /// The hidden states of all time steps and the final one, from `state` or zeros.
    ///
    /// # Shapes
    /// - input: `[batch_size, seq_length, d_input]`, or time first if not `batch_first`
    /// - output: `[batch_size, seq_length, d_hidden]`, or time first
    /// - states: `[batch_size, d_hidden]`
    ///
    /// # Panics
    /// If the shapes disagree with those above.
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<RnnState<2>>,
    ) -> (Tensor<3>, RnnState<2>) {
        let input = swapped_unless(self.batch_first, batched_input);
        let (output, state) = self.over_time(input, state, self.reverse);
        (swapped_unless(self.batch_first, output), state)
    }

    /// As [`forward`](Self::forward), of a batch-first input.
    pub(super) fn over_time(
        &self,
        input: Tensor<3>,
        state: Option<RnnState<2>>,
        reverse: bool,
    ) -> (Tensor<3>, RnnState<2>) {
        let [batch_size, _, _] = input.dims();
        let zeros = || Tensor::zeros([batch_size, self.d_hidden], &input.device());
        let hidden = state.map_or_else(zeros, |state| state.hidden);
        let (output, hidden) = time::over_time(input, hidden, reverse, |x, hidden| {
            let hidden = activate(&self.hidden_activation, self.gate.gate_product(x, hidden));
            match self.clip {
                Some(clip) => hidden.clamp(-clip, clip),
                None => hidden,
            }
        });
        (output, RnnState::new(hidden))
    }
}
