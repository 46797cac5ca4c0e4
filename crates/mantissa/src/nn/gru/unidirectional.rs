use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Initializer;
use burn::nn::activation::{Activation, ActivationConfig};
use burn::tensor::{Device, Tensor};

use crate::nn::activation::activate;
use crate::nn::gate_controller::GateController;
use crate::nn::time;

/// Configuration of a [`Gru`] layer, as [`burn::nn::GruConfig`].
#[derive(Config, Debug)]
pub struct GruConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether gates have biases.
    pub bias: bool,
    /// Whether the reset gate acts on the transformed hidden state, as in version 1 of
    /// [arXiv:1406.1078](https://arxiv.org/abs/1406.1078v1) and in PyTorch, or before the transformation, as in
    /// version 3. Default: true
    #[config(default = "true")]
    pub reset_after: bool,
    /// How parameters are initialized. Default: Xavier normal
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// The activation of the update and reset gates. Default: sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// The activation of the candidate. Default: tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// The largest magnitude of the hidden state. Default: no bound
    pub clip: Option<f64>,
}

impl GruConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> Gru {
        burn::nn::GruConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_reset_after(self.reset_after)
            .with_initializer(self.initializer.clone())
            .with_gate_activation(self.gate_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .with_clip(self.clip)
            .init(device)
            .into()
    }
}

/// A gated recurrent unit, two sites a gate: [`burn::nn::Gru`] whose products follow the current autocast.
///
/// Everything between the products stays in full precision.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Gru {
    /// How much of the hidden state stays.
    pub update_gate: GateController,
    /// How much of the hidden state the candidate sees.
    pub reset_gate: GateController,
    /// The candidate.
    pub new_gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the reset gate acts on the transformed hidden state.
    pub reset_after: bool,
    /// The activation of the update and reset gates.
    pub gate_activation: Activation,
    /// The activation of the candidate.
    pub hidden_activation: Activation,
    /// The largest magnitude of the hidden state.
    pub clip: Option<f64>,
}

impl From<burn::nn::Gru> for Gru {
    /// Keeps the parameters and their ids.
    fn from(gru: burn::nn::Gru) -> Self {
        Self {
            update_gate: gru.update_gate.into(),
            reset_gate: gru.reset_gate.into(),
            new_gate: gru.new_gate.into(),
            d_hidden: gru.d_hidden,
            reset_after: gru.reset_after,
            gate_activation: gru.gate_activation,
            hidden_activation: gru.hidden_activation,
            clip: gru.clip,
        }
    }
}

impl ModuleDisplay for Gru {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.update_gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .add("reset_after", &self.reset_after)
            .optional()
    }
}

impl Gru {
    /// The hidden states of all time steps, from `state` or zeros.
    ///
    /// # Shapes
    /// - input: `[batch_size, seq_length, d_input]`
    /// - state: `[batch_size, d_hidden]`
    /// - output: `[batch_size, seq_length, d_hidden]`
    ///
    /// # Panics
    /// If the shapes disagree with those above.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<Tensor<2>>) -> Tensor<3> {
        self.over_time(batched_input, state, false).0
    }

    /// The hidden states of all time steps, and the one after the last.
    pub(super) fn over_time(
        &self,
        input: Tensor<3>,
        state: Option<Tensor<2>>,
        reverse: bool,
    ) -> (Tensor<3>, Tensor<2>) {
        let [batch_size, _, _] = input.dims();
        let zeros = || Tensor::zeros([batch_size, self.d_hidden], &input.device());
        let hidden = state.unwrap_or_else(zeros);
        time::over_time(input, hidden, reverse, |x, hidden| self.step(x, hidden))
    }

    /// The hidden state after one time step.
    fn step(&self, x: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let opening = |gate: &GateController| {
            let sum = gate.gate_product(x.clone(), hidden.clone());
            activate(&self.gate_activation, sum)
        };
        let update = opening(&self.update_gate);
        let reset = opening(&self.reset_gate);
        let sum = if self.reset_after {
            self.new_gate.reset_product(x, hidden.clone(), reset)
        } else {
            self.new_gate.gate_product(x, hidden.clone() * reset)
        };
        let candidate = activate(&self.hidden_activation, sum);
        let hidden = candidate * update.clone().neg().add_scalar(1.0) + update * hidden;
        match self.clip {
            Some(clip) => hidden.clamp(-clip, clip),
            None => hidden,
        }
    }
}
