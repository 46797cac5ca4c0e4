use burn::module::Module;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::Linear;

/// A gate of a recurrent layer, two sites: `input_transform` and `hidden_transform`, each used once a time step.
#[derive(Module, Debug)]
pub struct GateController {
    /// The affine transformation of the input.
    pub input_transform: Linear,
    /// The affine transformation of the hidden state.
    pub hidden_transform: Linear,
}

impl From<burn::nn::GateController> for GateController {
    /// Keeps the parameters and their ids.
    fn from(gate: burn::nn::GateController) -> Self {
        Self {
            input_transform: gate.input_transform.into(),
            hidden_transform: gate.hidden_transform.into(),
        }
    }
}

impl GateController {
    /// Initializes a gate with the parameters that Burn's would get.
    pub fn new(
        d_input: usize,
        d_output: usize,
        bias: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        burn::nn::GateController::new(d_input, d_output, bias, initializer, device).into()
    }

    /// The sum of both transformations, of an input `[batch_size, d_input]` and a hidden state `[batch_size, d_hidden]`.
    pub fn gate_product(&self, input: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        self.input_transform.forward(input) + self.hidden_transform.forward(hidden)
    }

    /// As [`gate_product`](Self::gate_product), with the transformed hidden state multiplied by `reset`.
    pub(super) fn reset_product(
        &self,
        input: Tensor<2>,
        hidden: Tensor<2>,
        reset: Tensor<2>,
    ) -> Tensor<2> {
        self.input_transform.forward(input) + reset * self.hidden_transform.forward(hidden)
    }

    /// The size of the input and whether there are biases.
    pub(super) fn display(&self) -> (usize, bool) {
        let [d_input, _] = self.input_transform.weight.shape().dims();
        (d_input, self.input_transform.bias.is_some())
    }
}
