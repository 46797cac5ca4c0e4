//! Slices and strided views of Burn's CPU tensors, without copies.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::DType;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Shape, Tensor};
use mantissa_plan::Pass;
use mantissa_quant::Operand;

use crate::operation::{Operation, Outcome};
use crate::session::Order;

/// A tensor whose buffer holds its elements in order and nothing else: its slice is its storage.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    let elements = tensor.layout().num_elements();
    let whole = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.storage::<f32>().len() == elements;
    if whole {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The elements of a tensor made by [`contiguous`].
pub(crate) fn elements(tensor: &FlexTensor) -> &[f32] {
    tensor.storage()
}

/// The CPU tensor in a tensor of Burn's, which it may be the only owner of.
pub(crate) fn into_flex<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let slot = Arc::new(Mutex::new(None));
    let taken = slot.clone();
    let take = Operation::new("take", move |inputs, _| {
        let mut slot = taken.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = inputs.into_iter().next();
        Outcome::of(nothing())
    });
    drop(take.apply::<1>(vec![tensor.detach().into()]));
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(tensor) = slot.take() else {
        unreachable!("an operation is applied at once")
    };
    tensor
}

/// A tensor of Burn's, on `device`, that needs no gradient.
pub(crate) fn from_flex<const D: usize>(tensor: FlexTensor, device: &Device) -> Tensor<D> {
    let slot = Mutex::new(Some(tensor));
    let anchor = Tensor::<1>::empty([0], (device, DType::F32));
    let put = Operation::new("put", move |_, _| {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tensor) = slot.take() else {
            unreachable!("an operation is applied once")
        };
        Outcome::of(tensor)
    });
    put.apply(vec![anchor.into()])
}

/// A tensor of no elements.
pub(crate) fn nothing() -> FlexTensor {
    FlexTensor::empty(Shape::from(vec![0]), DType::F32)
}

/// The sizes of a tensor's axes.
pub(crate) fn shape(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().as_slice().to_vec()
}

/// Which of a matrix's axes is not contracted.
#[derive(Clone, Copy)]
pub(crate) enum Axis {
    Row,
    Column,
}

/// The geometry of an [`Operand`] over a tensor's buffer: the last two axes are matrices, the others a batch.
pub(crate) struct View<'a> {
    data: &'a [f32],
    offsets: Vec<usize>,
    pub(crate) outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
    axis: Axis,
}

impl<'a> View<'a> {
    /// `tensor` must have no negative stride (see [`positive`]).
    pub(crate) fn new(tensor: &'a FlexTensor, axis: Axis) -> Self {
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
        let ((outer, outer_stride), (depth, depth_stride)) = match axis {
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
            axis,
        }
    }

    /// How an operand's elements are numbered.
    pub(crate) fn order(&self) -> Order {
        Order {
            elements: self.offsets.len() * self.outer * self.depth,
            matrices: self.offsets.len(),
            axis: self.axis,
        }
    }

    pub(crate) fn operand(&self) -> Operand<'_> {
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
pub(crate) fn positive(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().strides().iter().all(|&stride| stride >= 0) {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The non-contracted axis of both tensors of a pass: `L R`, `G Rᵀ` and `Lᵀ G`.
pub(crate) fn outer_axes(pass: Pass) -> [Axis; 2] {
    match pass {
        Pass::Forward => [Axis::Row, Axis::Column],
        Pass::GradLhs => [Axis::Row, Axis::Row],
        Pass::GradRhs => [Axis::Column, Axis::Column],
    }
}
