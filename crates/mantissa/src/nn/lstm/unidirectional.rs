use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::activation::{Activation, ActivationConfig};
use burn::nn::lstm::{LstmState, OptionalInitialLstmState};
use burn::nn::{GateController as BurnsGate, Initializer};
use burn::tensor::{Device, Tensor, s};

use crate::nn::activation::activate;
use crate::nn::gate_controller::GateController;
use crate::nn::time::swapped_unless;

/// Configuration of an [`Lstm`] layer, as [`burn::nn::LstmConfig`].
#[derive(Config, Debug)]
pub struct LstmConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether gates have biases.
    pub bias: bool,
    /// How parameters are initialized. Default: Xavier normal
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the batch is the first axis of the input; if not, time is. Default: true
    #[config(default = true)]
    pub batch_first: bool,
    /// Whether time runs backwards. Default: false
    #[config(default = false)]
    pub reverse: bool,
    /// The largest magnitude of the cell state. Default: no bound
    pub clip: Option<f64>,
    /// Whether the forget gate is one minus the input gate, without parameters of its own. Default: false
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

impl LstmConfig {
    /// Initializes the layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> Lstm {
        burn::nn::LstmConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_reverse(self.reverse)
            .with_clip(self.clip)
            .with_input_forget(self.input_forget)
            .with_gate_activation(self.gate_activation.clone())
            .with_cell_activation(self.cell_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .init(device)
            .into()
    }
}

/// A long short-term memory, two sites a gate: [`burn::nn::Lstm`] whose products follow the current autocast.
///
/// Everything between the products stays in full precision, the cell state above all.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Lstm {
    /// How much of the candidate enters the cell state.
    pub input_gate: GateController,
    /// How much of the cell state stays; absent if `input_forget`.
    pub forget_gate: Option<GateController>,
    /// How much of the cell state is shown.
    pub output_gate: GateController,
    /// The candidate.
    pub cell_gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch is the first axis of the input; if not, time is.
    pub batch_first: bool,
    /// Whether time runs backwards.
    pub reverse: bool,
    /// The largest magnitude of the cell state.
    pub clip: Option<f64>,
    /// Whether the forget gate is one minus the input gate.
    pub input_forget: bool,
    /// The activation of the input, forget and output gates.
    pub gate_activation: Activation,
    /// The activation of the candidate.
    pub cell_activation: Activation,
    /// The activation of the cell state on its way to the output.
    pub hidden_activation: Activation,
}

impl From<burn::nn::Lstm> for Lstm {
    /// Keeps the parameters and their ids.
    fn from(lstm: burn::nn::Lstm) -> Self {
        let gate = |gate: BurnsGate| GateController::from(gate);
        Self {
            input_gate: gate(lstm.input_gate),
            forget_gate: lstm.forget_gate.map(gate),
            output_gate: gate(lstm.output_gate),
            cell_gate: gate(lstm.cell_gate),
            d_hidden: lstm.d_hidden,
            batch_first: lstm.batch_first,
            reverse: lstm.reverse,
            clip: lstm.clip,
            input_forget: lstm.input_forget,
            gate_activation: lstm.gate_activation,
            cell_activation: lstm.cell_activation,
            hidden_activation: lstm.hidden_activation,
        }
    }
}

impl ModuleDisplay for Lstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (d_input, bias) = self.input_gate.display();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias)
            .optional()
    }
}

impl Lstm {
    /// The hidden states of all time steps and the final state, from `state` or zeros.
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
        state: Option<LstmState<2>>,
    ) -> (Tensor<3>, LstmState<2>) {
        let input = swapped_unless(self.batch_first, batched_input);
        let (output, state) = self.over_time(input, state, self.reverse);
        (swapped_unless(self.batch_first, output), state)
    }

    /// All steps of `input`, `[batch_size, seq_length, d_input]`.
    pub(super) fn over_time(
        &self,
        input: Tensor<3>,
        state: Option<LstmState<2>>,
        reverse: bool,
    ) -> (Tensor<3>, LstmState<2>) {
        let [batch_size, seq_length, _] = input.dims();
        let device = input.device();
        let steps = input.iter_dim(1).enumerate();
        if reverse {
            self.forward_iter(steps.rev(), state, batch_size, seq_length, &device)
        } else {
            self.forward_iter(steps, state, batch_size, seq_length, &device)
        }
    }

    /// As [`forward`](Self::forward), over time steps `[batch_size, 1, d_input]` in the order in which they come, each
    /// with its place in the output `[batch_size, seq_length, d_hidden]`.
    pub fn forward_iter<I: Iterator<Item = (usize, Tensor<3>)>>(
        &self,
        input_timestep_iter: I,
        state: Option<LstmState<2>>,
        batch_size: usize,
        seq_length: usize,
        device: &Device,
    ) -> (Tensor<3>, LstmState<2>) {
        let mut output = Tensor::empty([batch_size, seq_length, self.d_hidden], device);
        let mut state = state.unwrap_or_initial([batch_size, self.d_hidden], device);
        for (time, input) in input_timestep_iter {
            state = self.step(input.squeeze_dim(1), state);
            let hidden = state.hidden.clone().unsqueeze_dim(1);
            output = output.slice_assign(s![.., time, ..], hidden);
        }
        (output, state)
    }

    /// The state after one time step.
    fn step(&self, x: Tensor<2>, state: LstmState<2>) -> LstmState<2> {
        let LstmState { cell, hidden } = state;
        let opening = |gate: &GateController| {
            let sum = gate.gate_product(x.clone(), hidden.clone());
            activate(&self.gate_activation, sum)
        };
        let input = opening(&self.input_gate);
        let forget = match &self.forget_gate {
            Some(gate) if !self.input_forget => opening(gate),
            _ => input.clone().neg().add_scalar(1.0),
        };
        let output = opening(&self.output_gate);
        let candidate = self.cell_gate.gate_product(x, hidden);
        let candidate = activate(&self.cell_activation, candidate);

        let mut cell = forget * cell + input * candidate;
        if let Some(clip) = self.clip {
            cell = cell.clamp(-clip, clip);
        }
        let hidden = output * activate(&self.hidden_activation, cell.clone());
        LstmState::new(cell, hidden)
    }
}
