//! [`burn::nn::activation`], with a [`Gelu`] that is one fused operation inside an autocast, and a [`SwiGlu`] whose products
//! follow it.

pub use super::swiglu::{SwiGlu, SwiGluConfig};
pub use burn::nn::activation::*;

use burn::module::Module;
use burn::tensor::Tensor;
use mantissa_kernels::activation::Activation as Function;

use crate::{fused, session};

/// The Gaussian error linear unit, `x Φ(x)`, as [`burn::nn::activation::Gelu`].
#[derive(Module, Debug, Default)]
pub struct Gelu {
    /// Whether to use the approximation by tanh.
    pub approximate: bool,
}

impl Gelu {
    /// The exact function.
    pub fn new() -> Self {
        Self::default()
    }

    /// The approximation by tanh.
    pub fn new_approximate() -> Self {
        Self { approximate: true }
    }

    /// Applies the function to every element.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let approximate = self.approximate;
        activate(
            &Activation::Gelu(burn::nn::activation::Gelu { approximate }),
            input,
        )
    }
}

/// Applies one of Burn's activations, fused where there is a kernel for it.
pub(crate) fn activate<const D: usize>(activation: &Activation, input: Tensor<D>) -> Tensor<D> {
    let function = match activation {
        Activation::Gelu(gelu) if gelu.approximate => Function::GeluTanh,
        Activation::Gelu(_) => Function::Gelu,
        Activation::Relu(_) => Function::Relu,
        Activation::SwiGlu(swiglu) => return SwiGlu::from(swiglu.clone()).forward(input),
        _ => return activation.forward(input),
    };
    if session::is_fused() {
        fused::activation(function, input)
    } else {
        activation.forward(input)
    }
}
