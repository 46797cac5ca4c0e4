//! Products of Burn tensors whose operands are quantized, differentiable.
//!
//! A product has three passes: `L R`, and backward `G Rᵀ` and `Lᵀ G`, each with numerics of its own for both operands.
//! A tensor whose numerics agree in the two passes that read it is quantized once, for the first, and kept as codes of
//! one byte where one scale serves them all.

mod encoding;
mod measure;
mod passes;

pub(crate) use measure::observe;
use passes::Right;
pub(crate) use passes::{quantized_table, stored_gradient};

use burn::tensor::Tensor;

use crate::operation::{Input, Operation};
use crate::session::SiteUse;
use crate::storage::read;

/// `lhs rhs` over the last two axes, as the current autocast's plan says for `site`; Burn's own `matmul` outside an
/// autocast and where the plan does not know the site.
///
/// Bind the session with [`Session::bind_with_products`](crate::Session::bind_with_products) so that the plan and the
/// model agree on such sites.
///
/// # Shapes
/// `[…, m, k] x […, k, n] -> […, m, n]`; batch axes broadcast.
///
/// # Panics
/// As Burn's `matmul`, if the shapes do not multiply.
pub fn matmul<const D: usize>(site: &str, lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    match SiteUse::of_name(site) {
        Some(site) => site_product(site, lhs, rhs, None),
        None => lhs.matmul(rhs),
    }
}

/// `lhs rhs + bias` under the numerics of `site`, measured where that is due.
pub(crate) fn site_product<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    planned_product(site, lhs, rhs, bias, Right::Computed)
}

/// [`site_product`] whose `rhs` is the site's weight itself: it may be stored in any way, and so may its gradient.
pub(crate) fn weight_product(
    site: SiteUse,
    lhs: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<2> {
    planned_product(site, lhs, weight, bias, Right::Weight)
}

fn planned_product<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
    bias: Option<Tensor<1>>,
    right: Right,
) -> Tensor<D> {
    let (lhs, rhs, right) = match site.outlier() {
        None => (lhs, rhs, right),
        Some(factor) => {
            let (lhs, rhs) = with_outlier(lhs, read(rhs), factor);
            (lhs, rhs, Right::Computed)
        }
    };
    let profiled = site
        .is_profiled()
        .then(|| (site.clone(), lhs.clone(), rhs.clone()));
    let output = if site.is_burns() {
        debug_assert!(
            bias.is_none(),
            "Burn's linear layers add their bias themselves"
        );
        lhs.matmul(rhs)
    } else {
        let (lhs, rhs) = broadcast_batches(lhs, rhs);
        let mut inputs: Vec<Input> = vec![lhs.into(), rhs.into()];
        inputs.extend(bias.map(Input::from));
        let product = move |inputs, wanted: &[bool]| passes::forward(&site, inputs, wanted, right);
        Operation::new("product", product).apply(inputs)
    };
    match profiled {
        Some((site, lhs, rhs)) => {
            let (lhs, rhs) = broadcast_batches(lhs, rhs);
            observe(site, lhs, rhs, output)
        }
        None => output,
    }
}

/// Operands of the same product, one of whose contracted features is larger on the left and smaller on the right.
fn with_outlier<const D: usize>(
    lhs: Tensor<D>,
    rhs: Tensor<D>,
    factor: f32,
) -> (Tensor<D>, Tensor<D>) {
    let depth = lhs.dims()[D - 1];
    let features = |factor: f32, axis: usize| {
        let mut factors = vec![1.0; depth];
        factors[depth / 2] = factor;
        let mut shape = [1; D];
        shape[axis] = depth;
        Tensor::<1>::from_floats(&factors[..], &lhs.device()).reshape(shape)
    };
    let (larger, smaller) = (features(factor, D - 1), features(factor.recip(), D - 2));
    (lhs.mul(larger), rhs.mul(smaller))
}

/// A lookup table as its site stores it; the gradient passes straight through.
pub(crate) fn round_table(site: SiteUse, table: Tensor<2>) -> Tensor<2> {
    Operation::new("round_table", move |inputs, wanted| {
        quantized_table(&site, inputs, wanted)
    })
    .apply(vec![table.into()])
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
