//! Activation functions and their gradients.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::math::{SIGMOID_END, clamp, normal, sigmoid, sigmoid_and_slope, tanh};
use crate::rows::{PIECE, count_rows, rows_per_piece, rows_per_sum, sum_over_blocks};
use crate::vector::dispatch;

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
        assert_eq!(x.len(), out.len(), "input and output differ in length");
        out.par_chunks_mut(PIECE)
            .zip(x.par_chunks(PIECE))
            .for_each(|(out, x)| self.dispatch(Forward { x, out }));
    }

    /// Turns the gradient of the output into that of the input `x`, in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn backward(self, x: &[f32], grad: &mut [f32]) {
        assert_eq!(x.len(), grad.len(), "input and gradient differ in length");
        grad.par_chunks_mut(PIECE)
            .zip(x.par_chunks(PIECE))
            .for_each(|(grad, x)| self.dispatch(Backward { x, grad }));
    }

    /// Adds `bias` to each row of `x`, in place, and writes the function of the sum to `out`.
    ///
    /// # Panics
    /// If the lengths differ or are not whole rows of `bias.len()`.
    pub fn bias_forward(self, x: &mut [f32], bias: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "input and output differ in length");
        count_rows(x.len(), bias.len());
        let piece = rows_per_piece(bias.len()) * bias.len().max(1);
        out.par_chunks_mut(piece)
            .zip(x.par_chunks_mut(piece))
            .for_each(|(out, x)| self.dispatch(BiasForward { x, bias, out }));
    }

    /// Turns the gradient of the output into that of the input `x` (the sum that [`bias_forward`](Self::bias_forward) left), in
    /// place, and writes the sums of its columns, the gradient of the bias, to `grad_bias`.
    ///
    /// # Panics
    /// If the lengths differ or are not whole rows of `grad_bias.len()`.
    pub fn bias_backward(self, x: &[f32], grad: &mut [f32], grad_bias: &mut [f32]) {
        assert_eq!(x.len(), grad.len(), "input and gradient differ in length");
        let width = grad_bias.len();
        let piece = rows_per_sum(count_rows(x.len(), width), width) * width.max(1);
        let blocks = grad.par_chunks_mut(piece).zip(x.par_chunks(piece));
        sum_over_blocks(blocks, grad_bias, |_, (grad, x), sums| {
            self.dispatch(BiasBackward { x, grad, sums });
        });
    }

    /// Runs a loop with this function on the best vector unit.
    fn dispatch(self, task: impl Loop) {
        match self {
            Self::Gelu => dispatch(With(task, Gelu)),
            Self::GeluTanh => dispatch(With(task, GeluTanh)),
            Self::Relu => dispatch(With(task, Relu)),
            Self::Silu => dispatch(With(task, Silu)),
            Self::Tanh => dispatch(With(task, Tanh)),
            Self::Sigmoid => dispatch(With(task, Sigmoid)),
        }
    }
}

/// A function of one element, and its derivative.
trait Function {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> f32;
}

/// A loop over elements with some function.
trait Loop {
    fn run<F: Function>(self);
}

struct With<L, F>(L, F);

impl<L: Loop, F: Function> WithSimd for With<L, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.0.run::<F>();
    }
}

struct Forward<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run<F: Function>(self) {
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = F::value(*x);
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    grad: &'a mut [f32],
}

impl Loop for Backward<'_> {
    #[inline(always)]
    fn run<F: Function>(self) {
        for (grad, x) in self.grad.iter_mut().zip(self.x) {
            *grad *= F::slope(*x);
        }
    }
}

struct BiasForward<'a> {
    x: &'a mut [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Loop for BiasForward<'_> {
    #[inline(always)]
    fn run<F: Function>(self) {
        let width = self.bias.len();
        let rows = self.x.chunks_exact_mut(width);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(width)) {
            for ((x, out), bias) in x.iter_mut().zip(out).zip(self.bias) {
                let sum = *x + bias;
                *x = sum;
                *out = F::value(sum);
            }
        }
    }
}

struct BiasBackward<'a> {
    x: &'a [f32],
    grad: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Loop for BiasBackward<'_> {
    #[inline(always)]
    fn run<F: Function>(self) {
        let width = self.sums.len();
        let rows = self.x.chunks_exact(width);
        for (x, grad) in rows.zip(self.grad.chunks_exact_mut(width)) {
            for ((x, grad), sum) in x.iter().zip(grad).zip(self.sums.iter_mut()) {
                let product = *grad * F::slope(*x);
                *grad = product;
                *sum += product;
            }
        }
    }
}

struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * normal(x).0
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let (cumulative, density) = normal(x);
        // Far out the density is 0, and must not meet an infinity.
        cumulative + clamp(x, 15.0) * density
    }
}

struct GeluTanh;

/// 2 √(2/π).
const TANH_SLOPE: f32 = 1.595_769_1;
const TANH_CUBE: f32 = 0.044_715;

impl Function for GeluTanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // (1 + tanh(u)) / 2 = σ(2u), without the cancellation.
        x * sigmoid(TANH_SLOPE * (x + TANH_CUBE * (x * x * x)))
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        // Beyond, the slope is 0 or 1, and e⁻ᵘ infinite.
        let x = clamp(x, 10.0);
        let square = x * x;
        let (s, slope) = sigmoid_and_slope(TANH_SLOPE * (x + TANH_CUBE * (square * x)));
        let inner = TANH_SLOPE * (1.0 + 3.0 * TANH_CUBE * square);
        s + x * slope * inner
    }
}

struct Relu;

impl Function for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x <= 0.0 {
            0.0
        } else if x > 0.0 {
            1.0
        } else {
            x
        }
    }
}

struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let x = clamp(x, SIGMOID_END);
        let (s, slope) = sigmoid_and_slope(x);
        s + x * slope
    }
}

struct Tanh;

impl Function for Tanh {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        tanh(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let y = tanh(x);
        1.0 - y * y
    }
}

struct Sigmoid;

impl Function for Sigmoid {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        sigmoid(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        sigmoid_and_slope(clamp(x, SIGMOID_END)).1
    }
}
