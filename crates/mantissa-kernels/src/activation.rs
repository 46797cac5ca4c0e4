//! Activation functions and their gradients.

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x)`, with Φ the cumulative distribution function of the normal distribution (Hendrycks and Gimpel 2016, arXiv
    /// 1606.08415).
    Gelu,
    /// `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the approximation of the same paper.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x σ(x)`, with σ the sigmoid.
    Silu,
    /// `tanh(x)`.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

impl Activation {
    /// Writes the function of each element of `x`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn forward(self, x: &[f32], out: &mut [f32]) {
        let _ = (x, out);
        todo!()
    }

    /// Turns the gradient of the output into that of the input `x`, in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn backward(self, x: &[f32], grad: &mut [f32]) {
        let _ = (x, grad);
        todo!()
    }

    /// Adds `bias` to each row of `x`, in place, and writes the function of the sum to `out`.
    ///
    /// # Panics
    /// If the lengths differ or are not whole rows of `bias.len()`.
    pub fn bias_forward(self, x: &mut [f32], bias: &[f32], out: &mut [f32]) {
        let _ = (x, bias, out);
        todo!()
    }

    /// Turns the gradient of the output into that of the input `x` (the sum that [`bias_forward`](Self::bias_forward) left), in
    /// place, and writes the sums of its columns, the gradient of the bias, to `grad_bias`.
    ///
    /// # Panics
    /// If the lengths differ or are not whole rows of `grad_bias.len()`.
    pub fn bias_backward(self, x: &[f32], grad: &mut [f32], grad_bias: &mut [f32]) {
        let _ = (x, grad, grad_bias);
        todo!()
    }
}
