//! Activation functions and their gradients.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::math::{SIGMOID_END, clamp, normal, normal_exponent, sigmoid, sigmoid_and_slope, tanh};
use crate::powers::Powers;
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

/// An activation of one element and its derivative, given the exponential of `exponent(x)`.
trait Curve {
    /// Whether there is an exponential at all.
    const EXPONENTIAL: bool = true;
    /// The slope of larger inputs is that of this one: nearer infinity the parts of some slopes have no product.
    const SLOPE_END: f32;

    fn exponent(x: f32) -> f32;
    fn value(x: f32, power: f32) -> f32;
    fn slope(x: f32, power: f32) -> f32;
}

/// `out = curve(x)`.
#[inline(always)]
fn values<C: Curve>(powers: &mut Powers, x: &[f32], out: &mut [f32]) {
    if C::EXPONENTIAL {
        powers.map(x, out, C::exponent, C::value);
    } else {
        for (x, out) in x.iter().zip(out) {
            *out = C::value(*x, 0.0);
        }
    }
}

/// `grad = grad · slope(x)`.
#[inline(always)]
fn slopes<C: Curve>(powers: &mut Powers, x: &[f32], grad: &mut [f32]) {
    if C::EXPONENTIAL {
        let exponent = |x| C::exponent(clamp(x, C::SLOPE_END));
        let slope = |x, power| C::slope(clamp(x, C::SLOPE_END), power);
        powers.multiply(x, grad, exponent, slope);
    } else {
        for (x, grad) in x.iter().zip(grad) {
            *grad *= C::slope(*x, 0.0);
        }
    }
}

/// A loop over elements with some activation.
trait Loop {
    fn run<C: Curve>(self);
}

struct With<L, C>(L, C);

impl<L: Loop, C: Curve> WithSimd for With<L, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.0.run::<C>();
    }
}

struct Forward<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run<C: Curve>(self) {
        values::<C>(&mut Powers::new(), self.x, self.out);
    }
}

struct Backward<'a> {
    x: &'a [f32],
    grad: &'a mut [f32],
}

impl Loop for Backward<'_> {
    #[inline(always)]
    fn run<C: Curve>(self) {
        slopes::<C>(&mut Powers::new(), self.x, self.grad);
    }
}

struct BiasForward<'a> {
    x: &'a mut [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Loop for BiasForward<'_> {
    #[inline(always)]
    fn run<C: Curve>(self) {
        let width = self.bias.len();
        let mut powers = Powers::new();
        let rows = self.x.chunks_exact_mut(width);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(width)) {
            for (x, bias) in x.iter_mut().zip(self.bias) {
                *x += bias;
            }
            values::<C>(&mut powers, x, out);
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
    fn run<C: Curve>(self) {
        let width = self.sums.len();
        let mut powers = Powers::new();
        let rows = self.x.chunks_exact(width);
        for (x, grad) in rows.zip(self.grad.chunks_exact_mut(width)) {
            slopes::<C>(&mut powers, x, grad);
            for (sum, grad) in self.sums.iter_mut().zip(grad) {
                *sum += *grad;
            }
        }
    }
}

struct Gelu;

impl Curve for Gelu {
    const SLOPE_END: f32 = 15.0;

    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        normal_exponent(x)
    }

    #[inline(always)]
    fn value(x: f32, power: f32) -> f32 {
        x * normal(x, power).0
    }

    #[inline(always)]
    fn slope(x: f32, power: f32) -> f32 {
        let (cumulative, density) = normal(x, power);
        cumulative + x * density
    }
}

struct GeluTanh;

/// 2 √(2/π).
const TANH_SLOPE: f32 = 1.595_769;
const TANH_CUBE: f32 = 0.044_715;

impl Curve for GeluTanh {
    const SLOPE_END: f32 = 10.0;

    /// -2u, for `(1 + tanh(u)) / 2 = σ(2u)`, without the cancellation.
    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        -TANH_SLOPE * (x + TANH_CUBE * (x * x * x))
    }

    #[inline(always)]
    fn value(x: f32, power: f32) -> f32 {
        x * sigmoid(power)
    }

    #[inline(always)]
    fn slope(x: f32, power: f32) -> f32 {
        let (s, slope) = sigmoid_and_slope(power);
        s + x * slope * (TANH_SLOPE + 3.0 * TANH_CUBE * TANH_SLOPE * (x * x))
    }
}

struct Relu;

impl Curve for Relu {
    const EXPONENTIAL: bool = false;
    const SLOPE_END: f32 = f32::INFINITY;

    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn value(x: f32, _: f32) -> f32 {
        if x < 0.0 { 0.0 } else { x }
    }

    #[inline(always)]
    fn slope(x: f32, _: f32) -> f32 {
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

impl Curve for Silu {
    const SLOPE_END: f32 = SIGMOID_END;

    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        -x
    }

    #[inline(always)]
    fn value(x: f32, power: f32) -> f32 {
        x * sigmoid(power)
    }

    #[inline(always)]
    fn slope(x: f32, power: f32) -> f32 {
        let (s, slope) = sigmoid_and_slope(power);
        s + x * slope
    }
}

struct Tanh;

impl Curve for Tanh {
    const SLOPE_END: f32 = SIGMOID_END;

    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        2.0 * x.abs()
    }

    #[inline(always)]
    fn value(x: f32, power: f32) -> f32 {
        tanh(x, power)
    }

    #[inline(always)]
    fn slope(x: f32, power: f32) -> f32 {
        let y = tanh(x, power);
        1.0 - y * y
    }
}

struct Sigmoid;

impl Curve for Sigmoid {
    const SLOPE_END: f32 = SIGMOID_END;

    #[inline(always)]
    fn exponent(x: f32) -> f32 {
        -x
    }

    #[inline(always)]
    fn value(_: f32, power: f32) -> f32 {
        sigmoid(power)
    }

    #[inline(always)]
    fn slope(_: f32, power: f32) -> f32 {
        sigmoid_and_slope(power).1
    }
}
