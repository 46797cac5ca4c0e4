//! Quantized products of Burn tensors, differentiable.
//!
//! Burn reaches the op through its backend extension mechanism: [`ProductOps`] is implemented for the CPU backend
//! and, with the backward pass, for `Autodiff` over any backend that has it.

mod autodiff;
mod flex;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use mantissa_plan::Pass;

use crate::session::SiteUse;

/// The ops this crate adds to Burn's backends.
#[backend_extension(Flex, Autodiff)]
pub trait ProductOps: Backend {
    /// One pass of a product, operands quantized for it: `forward` is `left right`, `grad_lhs` is
    /// `left rightᵀ` and `grad_rhs` is `leftᵀ right`, over the last two axes of tensors with equal batch axes.
    fn product(
        left: FloatTensor<Self>,
        right: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self>;

    /// Returns `output` unchanged, and measures `lhs`, `rhs` and the gradient of `output` when that is known.
    fn observe(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        output: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self>;

    /// Hands the three operands of a site to the profiler and returns `grad` unchanged.
    fn sample(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self>;

    /// Rounds `values` (a table of rows `[rows, width]`) to the right operand's numerics of the forward pass; the
    /// gradient passes straight through.
    fn round_table(values: FloatTensor<Self>, call: ProductCall) -> FloatTensor<Self>;

    /// `[non-finite elements, largest finite magnitude]` of a tensor, as a tensor of two.
    fn scan(values: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Which pass of which site's use a product computes.
#[derive(Clone, Debug)]
pub struct ProductCall {
    pub(crate) site: SiteUse,
    pub(crate) pass: Pass,
}

impl ProductCall {
    fn forward(site: SiteUse) -> Self {
        Self {
            site,
            pass: Pass::Forward,
        }
    }

    fn with_pass(&self, pass: Pass) -> Self {
        Self {
            site: self.site.clone(),
            pass,
        }
    }
}

/// `lhs rhs` over the last two axes, as the current autocast's plan says for `site`; Burn's own `matmul` outside an
/// autocast and where the plan does not know the site.
///
/// Sites of this function are not found by [`crate::sites`]: make the plan for them too, and bind it with
/// [`Session::bind_with_products`](crate::Session::bind_with_products).
///
/// # Shapes
/// `[…, m, k] x […, k, n] -> […, m, n]`; batch axes broadcast.
///
/// # Panics
/// As Burn's `matmul`, if the shapes do not multiply.
pub fn matmul<const D: usize>(site: &str, lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    match SiteUse::of_name(site) {
        Some(site) => site_matmul(site, lhs, rhs),
        None => lhs.matmul(rhs),
    }
}

/// `lhs rhs` under the numerics of `site`, measured where that is due.
pub(crate) fn site_matmul<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
) -> Tensor<D> {
    let profiled = site
        .is_profiled()
        .then(|| (site.clone(), lhs.clone(), rhs.clone()));
    let output = if site.is_fp32() {
        lhs.matmul(rhs)
    } else {
        let (lhs, rhs) = broadcast_batches(lhs, rhs);
        quantized(site, lhs, rhs)
    };
    match profiled {
        Some((site, lhs, rhs)) => {
            let (lhs, rhs) = broadcast_batches(lhs, rhs);
            observe(site, lhs, rhs, output)
        }
        None => output,
    }
}

/// The forward product with its backward recorded; batch axes must be equal.
pub(crate) fn quantized<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::product(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
        ProductCall::forward(site),
    ))
}

/// `output` itself, with its site's operands measured once its gradient is known.
pub(crate) fn observe<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
    output: Tensor<D>,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::observe(
        lhs.detach().into_dispatch(),
        rhs.detach().into_dispatch(),
        output.into_dispatch(),
        ProductCall::forward(site),
    ))
}

/// A lookup table as its site stores it.
pub(crate) fn round_table(site: SiteUse, table: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::round_table(
        table.into_dispatch(),
        ProductCall::forward(site),
    ))
}

/// How many elements of `values` are not finite, and the largest finite magnitude.
pub(crate) fn scan<const D: usize>(values: Tensor<D>) -> (u64, f32) {
    let scanned = Tensor::<1>::from_dispatch(Dispatch::scan(values.into_dispatch())).into_data();
    match scanned.as_slice::<f32>() {
        Ok(&[non_finite, amax]) => (non_finite as u64, amax),
        _ => unreachable!("scan returns two f32 values"),
    }
}

fn broadcast_batches<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let (left, right) = (lhs.dims(), rhs.dims());
    if left[..D - 2] == right[..D - 2] {
        return (lhs, rhs);
    }
    let (mut left_shape, mut right_shape) = (left, right);
    for axis in 0..D - 2 {
        let size = left[axis].max(right[axis]);
        left_shape[axis] = size;
        right_shape[axis] = size;
    }
    (lhs.expand(left_shape), rhs.expand(right_shape))
}
