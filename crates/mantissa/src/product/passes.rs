//! The three passes of a product.

use std::sync::{Arc, OnceLock};

use burn::backend::flex::FlexTensor;
use mantissa_kernels::reduce::column_sums;
use mantissa_plan::{Pass, Role, Storage};
use mantissa_quant::{Amax, Factor, Numerics, OperandReport, fake_quantize, product};

use super::encoding::{self, Codes};
use crate::buffer::Buffer;
use crate::flex_tensor::{Axis, View, contiguous, elements, outer_axes, positive, shape};
use crate::operation::{Gradient, Outcome};
use crate::session::SiteUse;
use crate::storage::{Form, widened_flex};

/// What the right operand of a product is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right {
    /// The site's weight itself, whose gradient waits for the update as it is stored.
    Weight,
    /// Computed from something else.
    Computed,
}

/// `left right + bias` of the inputs' last two axes.
pub(super) fn forward(
    site: &SiteUse,
    inputs: Vec<FlexTensor>,
    wanted: &[bool],
    right: Right,
) -> Outcome {
    let mut inputs = inputs.into_iter();
    let (Some(lhs), Some(rhs), bias) = (inputs.next(), inputs.next(), inputs.next()) else {
        unreachable!("two operands")
    };
    let bias = bias.map(contiguous);
    let [wants_lhs, wants_rhs] = [wanted[0], wanted[1]];
    let evaluating = (!wanted.contains(&true)).then(|| site.evaluating());
    let site = evaluating.as_ref().unwrap_or(site);
    let reads = |again: bool, pass| again.then_some(pass);
    let lhs = Tensor::new(
        site,
        lhs,
        Role::Lhs,
        Pass::Forward,
        reads(wants_rhs, Pass::GradRhs),
    );
    let rhs = Tensor::new(
        site,
        rhs,
        Role::Rhs,
        Pass::Forward,
        reads(wants_lhs, Pass::GradLhs),
    );
    let result = multiply(site, Pass::Forward, &lhs, &rhs, bias.as_ref().map(elements));
    let wants_bias = wanted.get(2).copied();
    let gradient = wanted.contains(&true).then(|| -> Gradient {
        let site = site.clone();
        let (lhs, rhs) = (wants_rhs.then_some(lhs), wants_lhs.then_some(rhs));
        Box::new(move |grad| {
            let bias = wants_bias.map(|wanted| wanted.then(|| bias_gradient(&grad)));
            let first = if wants_lhs {
                Pass::GradLhs
            } else {
                Pass::GradRhs
            };
            let again = reads(wants_lhs && wants_rhs, Pass::GradRhs);
            let grad = Tensor::new(&site, grad, Role::Grad, first, again);
            let lhs_grad = rhs.map(|rhs| multiply(&site, Pass::GradLhs, &grad, &rhs, None));
            let rhs_grad = lhs.map(|lhs| {
                let gradient = multiply(&site, Pass::GradRhs, &lhs, &grad, None);
                match right {
                    Right::Weight => stored_gradient(&site, gradient),
                    Right::Computed => gradient,
                }
            });
            let mut gradients = vec![lhs_grad, rhs_grad];
            gradients.extend(bias);
            gradients
        })
    });
    Outcome { result, gradient }
}

/// Rounds a table `[rows, width]` to the right operand's numerics of the forward pass.
pub(crate) fn quantized_table(site: &SiteUse, inputs: Vec<FlexTensor>, wanted: &[bool]) -> Outcome {
    let table = inputs.into_iter().map(widened_flex).map(positive).next();
    let Some(table) = table else {
        unreachable!("one table")
    };
    let numerics = &site.numerics(Pass::Forward).right;
    let view = View::new(&table, Axis::Row);
    let random = site.random(Pass::Forward, Role::Rhs, view.order());
    let rounded = fake_quantize(&view.operand(), numerics, random);
    Outcome {
        result: Buffer::from(rounded).into_tensor(&shape(&table)),
        gradient: wanted.contains(&true).then(|| -> Gradient {
            let site = site.clone();
            Box::new(move |grad| vec![Some(stored_gradient(&site, grad))])
        }),
    }
}

/// A weight's gradient as it waits for the update. Burn would add the gradients of several uses, which it can do with f32
/// only.
pub(crate) fn stored_gradient(site: &SiteUse, gradient: FlexTensor) -> FlexTensor {
    let storage = site.gradient_storage(gradient.layout().num_elements());
    if storage == Storage::Fp32 || !site.is_the_only_use() {
        return gradient;
    }
    let gradient = contiguous(gradient);
    let shape = shape(&gradient);
    Form::new(storage, &shape).store(elements(&gradient), &shape, Some(site.gradient_random()))
}

fn bias_gradient(grad: &FlexTensor) -> FlexTensor {
    let grad = contiguous(grad.clone());
    let Some(&width) = shape(&grad).last() else {
        unreachable!("matrices have columns")
    };
    let mut sums = Buffer::new(width);
    column_sums(elements(&grad), width, &mut sums);
    sums.into_tensor(&[width])
}

/// One of the three tensors of a site, for the passes that read it.
struct Tensor {
    role: Role,
    /// Sizes of all axes but the last two.
    batch: Vec<usize>,
    values: Values,
    /// The whole batch's amax, if ranks found it for codes.
    amax: Option<f32>,
}

enum Values {
    /// To be quantized by each pass, and widened first if it is stored in fewer bits.
    Unquantized(FlexTensor),
    /// Quantized for all passes, in the order of the tensor's own rows.
    Encoded(Arc<Codes>),
}

impl Tensor {
    /// Encodes `tensor` if the passes `first` and `again` read it with the same numerics.
    fn new(
        site: &SiteUse,
        tensor: FlexTensor,
        role: Role,
        first: Pass,
        again: Option<Pass>,
    ) -> Self {
        let tensor = positive(tensor);
        let mut batch = shape(&tensor);
        batch.truncate(batch.len() - 2);
        let numerics = |pass| *site_numerics(site, pass, role);
        let agree = again.is_some_and(|again| numerics(first) == numerics(again));
        let raised = OnceLock::new();
        let encoded = agree
            .then(|| {
                let numerics = numerics(first);
                let amax_of = site.amax_of(first, role, &numerics, Axis::Row);
                let raise = |amaxes: &mut [f32]| {
                    site.raise(first, role, amaxes);
                    raised.get_or_init(|| amaxes[0]);
                };
                let wide = widened_flex(tensor.clone());
                let random = site.random(first, role, View::new(&wide, Axis::Row).order());
                match role {
                    Role::Lhs => encoding::of_input(&wide, &numerics, amax_of, &raise, random),
                    Role::Rhs | Role::Grad => {
                        encoding::of(&wide, &numerics, amax_of.with(&raise), random)
                    }
                }
            })
            .flatten();
        if let Some(encoded) = &encoded {
            report(site, first, role, encoded.report());
        }
        Self {
            role,
            batch,
            values: encoded.map_or(Values::Unquantized(tensor), Values::Encoded),
            amax: raised.into_inner(),
        }
    }

    /// The values in f32, if they are not codes.
    fn wide(&self) -> Option<FlexTensor> {
        match &self.values {
            Values::Unquantized(tensor) => Some(widened_flex(tensor.clone())),
            Values::Encoded(_) => None,
        }
    }

    /// The operand of a pass in which `axis` is not contracted; `raise` is [`SiteUse::raise`] of it.
    fn factor<'a>(
        &'a self,
        site: &SiteUse,
        pass: Pass,
        axis: Axis,
        view: &'a Option<View<'a>>,
        raise: &'a (dyn Fn(&mut [f32]) + Sync),
    ) -> Factor<'a> {
        match (&self.values, view) {
            (Values::Unquantized(_), Some(view)) => {
                let numerics = site_numerics(site, pass, self.role);
                let random = site.random(pass, self.role, view.order());
                // Codes may have no NaN, of which only this rank knows: the others do not wait for a second amax.
                let amax = match self.amax {
                    Some(amax) => Amax::Given(amax),
                    None => site.amax_of(pass, self.role, numerics, axis).with(raise),
                };
                Factor::new(view.operand(), *numerics, random).with_amax(amax)
            }
            (Values::Encoded(encoded), _) => match axis {
                Axis::Row => encoded.factor(),
                Axis::Column => encoded.transposed(),
            },
            _ => unreachable!("values that are not encoded have a view"),
        }
    }

    fn is_encoded(&self) -> bool {
        matches!(self.values, Values::Encoded(_))
    }
}

/// The product of one pass.
fn multiply(
    site: &SiteUse,
    pass: Pass,
    left: &Tensor,
    right: &Tensor,
    bias: Option<&[f32]>,
) -> FlexTensor {
    let [left_axis, right_axis] = outer_axes(pass);
    let (left_wide, right_wide) = (left.wide(), right.wide());
    let left_view = left_wide.as_ref().map(|wide| View::new(wide, left_axis));
    let right_view = right_wide.as_ref().map(|wide| View::new(wide, right_axis));
    let [raise_left, raise_right] = [left.role, right.role]
        .map(|role| move |amaxes: &mut [f32]| site.raise(pass, role, amaxes));
    let lhs = left.factor(site, pass, left_axis, &left_view, &raise_left);
    let rhs = right.factor(site, pass, right_axis, &right_view, &raise_right);
    let mut shape = left.batch.clone();
    shape.extend([lhs.outer(), rhs.outer()]);
    let mut output = Buffer::new(shape.iter().product());
    let found = product(lhs, rhs, bias, &mut output);
    for (tensor, found) in [(left, found.lhs), (right, found.rhs)] {
        if !tensor.is_encoded() {
            report(site, pass, tensor.role, found);
        }
    }
    output.into_tensor(&shape)
}

fn site_numerics(site: &SiteUse, pass: Pass, role: Role) -> &Numerics {
    let numerics = site.numerics(pass);
    if pass.operands()[0] == role {
        &numerics.left
    } else {
        &numerics.right
    }
}

fn report(site: &SiteUse, pass: Pass, role: Role, found: OperandReport) {
    site.report_fault(pass, role, found.non_finite);
    if let Some(amax) = found.amax {
        site.remember_amax(pass, role, site_numerics(site, pass, role), amax);
    }
}
