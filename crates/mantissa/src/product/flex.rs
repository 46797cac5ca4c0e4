//! [`ProductOps`] on Burn's CPU backend: strided views of Burn's buffers go in without a copy, and the result
//! vector becomes Burn's buffer without a copy.

use std::time::Instant;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{DType, Flex};
use burn::tensor::{Bytes, Shape};
use mantissa_plan::{Pass, Role};
use mantissa_quant::{Numerics, Operand, fake_quantize, product};

use super::{ProductCall, ProductOps};
use crate::profiler::{Amax, Operands, amax};

impl ProductOps for Flex {
    fn product(left: FlexTensor, right: FlexTensor, call: ProductCall) -> FlexTensor {
        let pass = call.pass;
        let numerics = call.site.numerics(pass);
        if numerics.left.is_fp32() && numerics.right.is_fp32() {
            return full_precision(left, right, pass);
        }
        let (left, right) = (positive(left), positive(right));
        let [left_outer, right_outer] = outer_axes(pass);
        let left_view = View::new(&left, left_outer);
        let right_view = View::new(&right, right_outer);

        let rank = left.layout().num_dims();
        let mut shape = left.layout().shape().as_slice()[..rank - 2].to_vec();
        shape.extend([left_view.outer, right_view.outer]);
        let mut output = vec![0.0; shape.iter().product()];

        let [left_role, right_role] = pass.operands();
        let report = product(
            &left_view.operand(),
            &numerics.left,
            call.site.random(pass, left_role),
            &right_view.operand(),
            &numerics.right,
            call.site.random(pass, right_role),
            &mut output,
        );
        call.site
            .report_fault(pass, left_role, report.lhs.non_finite);
        call.site
            .report_fault(pass, right_role, report.rhs.non_finite);
        from_vec(output, shape)
    }

    fn observe(
        _lhs: FlexTensor,
        _rhs: FlexTensor,
        output: FlexTensor,
        _call: ProductCall,
    ) -> FlexTensor {
        output
    }

    fn sample(lhs: FlexTensor, rhs: FlexTensor, grad: FlexTensor, call: ProductCall) -> FlexTensor {
        let mut profiler = call.site.profiler();
        if let Some(profiler) = profiler.as_mut() {
            let started = Instant::now();
            let operands = [&lhs, &rhs, &grad].map(|tensor| positive(tensor.clone()));
            let [lhs, rhs, grad] = &operands;
            let whole = |tensor| amax(&View::new(tensor, Axis::Row).operand());
            let amax = Amax {
                lhs: whole(lhs),
                rhs: whole(rhs),
                grad: whole(grad),
            };
            profiler.count_time(started.elapsed());
            let (site, step) = (call.site.site_index(), call.site.step());
            for pass in Pass::ALL {
                let [left, right] = pass.operands().map(|role| match role {
                    Role::Lhs => lhs,
                    Role::Rhs => rhs,
                    Role::Grad => grad,
                });
                let [left_outer, right_outer] = outer_axes(pass);
                let (left, right) = (View::new(left, left_outer), View::new(right, right_outer));
                let operands = Operands {
                    left: left.operand(),
                    right: right.operand(),
                };
                profiler.sample(site, step, pass, &operands, &amax);
            }
        }
        drop(profiler);
        grad
    }

    fn round_table(values: FlexTensor, call: ProductCall) -> FlexTensor {
        let numerics: &Numerics = &call.site.numerics(Pass::Forward).right;
        if numerics.is_fp32() {
            return values;
        }
        let values = positive(values);
        let view = View::new(&values, Axis::Row);
        let random = call.site.random(Pass::Forward, Role::Rhs);
        let rounded = fake_quantize(&view.operand(), numerics, random);
        let shape = values.layout().shape().as_slice().to_vec();
        from_vec(rounded, shape)
    }

    fn scan(values: FlexTensor) -> FlexTensor {
        let values = values.to_contiguous();
        let elements: &[f32] = values.as_slice().unwrap_or(&[]);
        // The largest magnitude bit pattern is above infinity's exactly where something is not finite, so the
        // common case is one vectorised pass.
        let top = elements
            .iter()
            .fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
        let (non_finite, amax) = if f32::from_bits(top).is_finite() {
            (0, f32::from_bits(top))
        } else {
            let finite = elements.iter().filter(|x| x.is_finite());
            let amax = finite.clone().fold(0.0_f32, |amax, x| amax.max(x.abs()));
            (elements.len() - finite.count(), amax)
        };
        from_vec(vec![non_finite as f32, amax], vec![2])
    }
}

fn full_precision(left: FlexTensor, right: FlexTensor, pass: Pass) -> FlexTensor {
    match pass {
        Pass::Forward => Flex::float_matmul(left, right),
        Pass::GradLhs => Flex::float_matmul(left, Flex::float_transpose(right)),
        Pass::GradRhs => Flex::float_matmul(Flex::float_transpose(left), right),
    }
}

/// Which of a matrix's axes is not contracted.
#[derive(Clone, Copy)]
enum Axis {
    Row,
    Column,
}

/// The non-contracted axis of both tensors of a pass: `L R`, `G Rᵀ` and `Lᵀ G`.
fn outer_axes(pass: Pass) -> [Axis; 2] {
    match pass {
        Pass::Forward => [Axis::Row, Axis::Column],
        Pass::GradLhs => [Axis::Row, Axis::Row],
        Pass::GradRhs => [Axis::Column, Axis::Column],
    }
}

/// The geometry of an [`Operand`] over a tensor's buffer.
struct View<'a> {
    data: &'a [f32],
    offsets: Vec<usize>,
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
}

impl<'a> View<'a> {
    /// `tensor` must have no negative stride (see [`positive`]).
    fn new(tensor: &'a FlexTensor, outer: Axis) -> Self {
        let layout = tensor.layout();
        let shape = layout.shape().as_slice();
        let strides: Vec<usize> = layout.strides().iter().map(|&s| s as usize).collect();
        let rank = shape.len();
        let (batch, matrix) = shape.split_at(rank - 2);
        let mut offsets = vec![layout.start_offset()];
        for (&size, &stride) in batch.iter().zip(&strides) {
            offsets = offsets
                .iter()
                .flat_map(|&offset| (0..size).map(move |i| offset + i * stride))
                .collect();
        }
        let (row, column) = (
            (matrix[0], strides[rank - 2]),
            (matrix[1], strides[rank - 1]),
        );
        let ((outer, outer_stride), (depth, depth_stride)) = match outer {
            Axis::Row => (row, column),
            Axis::Column => (column, row),
        };
        Self {
            data: tensor.storage(),
            offsets,
            outer,
            depth,
            outer_stride,
            depth_stride,
        }
    }

    fn operand(&self) -> Operand<'_> {
        Operand {
            data: self.data,
            offsets: &self.offsets,
            outer: self.outer,
            depth: self.depth,
            outer_stride: self.outer_stride,
            depth_stride: self.depth_stride,
        }
    }
}

/// `tensor` itself, or a contiguous copy of it if it is flipped along an axis.
fn positive(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().strides().iter().all(|&stride| stride >= 0) {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

fn from_vec(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::from(shape)),
        DType::F32,
    )
}
