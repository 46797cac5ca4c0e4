//! Measuring the operands of a product while training.

use std::time::Instant;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use mantissa_plan::sampling::finite_amax;
use mantissa_plan::{Pass, Role};

use crate::flex_tensor::{Axis, View, outer_axes, positive};
use crate::operation::{Gradient, Operation, Outcome};
use crate::profiler::{Amax, Operands};
use crate::scaler::loss_scale_in_backward;
use crate::session::SiteUse;
use crate::storage::widened_flex;

/// `output` itself, with its site's operands measured once its gradient is known.
pub(crate) fn observe<const D: usize>(
    site: SiteUse,
    lhs: Tensor<D>,
    rhs: Tensor<D>,
    output: Tensor<D>,
) -> Tensor<D> {
    let inputs = vec![output.into(), lhs.detach().into(), rhs.detach().into()];
    Operation::new("observe", move |inputs, wanted| {
        let Ok([output, lhs, rhs]) = <[FlexTensor; 3]>::try_from(inputs) else {
            unreachable!("an output and two operands")
        };
        let site = site.clone();
        let gradient = wanted[0].then(|| -> Gradient {
            Box::new(move |grad| {
                let tensors = [lhs, rhs, grad.clone()];
                sample(&site, tensors.map(|tensor| positive(widened_flex(tensor))));
                vec![Some(grad), None, None]
            })
        });
        Outcome {
            result: output,
            gradient,
        }
    })
    .apply(inputs)
}

/// Hands the three tensors of a site to the profiler and to the sampler, whichever this step is due for.
fn sample(site: &SiteUse, [lhs, rhs, grad]: [FlexTensor; 3]) {
    let step = site.step();
    let started = Instant::now();
    let mut profiler = site.profiler();
    let mut profiler = profiler.as_mut().filter(|profiler| profiler.is_due(step));
    let mut sampler = site.sampler();
    let mut sampler = Some(&mut *sampler).filter(|sampler| sampler.is_active());
    if profiler.is_none() && sampler.is_none() {
        return;
    }
    let whole = |tensor| finite_amax(&View::new(tensor, Axis::Row).operand());
    let (lhs_amax, (rhs_amax, grad_amax)) = rayon::join(
        || whole(&lhs),
        || rayon::join(|| whole(&rhs), || whole(&grad)),
    );
    let amax = Amax {
        lhs: lhs_amax,
        rhs: rhs_amax,
        grad: grad_amax,
    };
    let spent = started.elapsed();
    match (&mut profiler, &mut sampler) {
        (Some(profiler), _) => profiler.count_time(spent),
        (None, Some(sampler)) => sampler.count_time(spent),
        (None, None) => {}
    }
    let (index, tensors) = (site.site_index(), [&lhs, &rhs]);
    if let Some(profiler) = &mut profiler {
        let unscaling = loss_scale_in_backward().recip();
        with_passes(tensors, &grad, |passes| {
            profiler.sample(index, step, passes, &amax, unscaling);
        });
    }
    if let Some(sampler) = &mut sampler {
        with_passes(tensors, &grad, |passes| {
            sampler.sample(index, step, passes, &amax);
        });
    }
}

/// Hands over the operands of all three passes.
fn with_passes(
    [lhs, rhs]: [&FlexTensor; 2],
    grad: &FlexTensor,
    f: impl FnOnce(&[(Pass, Operands<'_>); 3]),
) {
    let views = Pass::ALL.map(|pass| {
        let [left, right] = pass.operands().map(|role| match role {
            Role::Lhs => lhs,
            Role::Rhs => rhs,
            Role::Grad => grad,
        });
        let [left_outer, right_outer] = outer_axes(pass);
        (View::new(left, left_outer), View::new(right, right_outer))
    });
    f(&std::array::from_fn(|i| {
        let (left, right) = &views[i];
        let operands = Operands {
            left: left.operand(),
            right: right.operand(),
        };
        (Pass::ALL[i], operands)
    }));
}
