//! Differentiable operations of our own on Burn tensors.
//!
//! An operation is a function from CPU tensors to a result and a closure: its backward pass, which owns what it needs
//! of the forward pass. [`Operation::apply`] puts one into Burn's graph through its backend extension mechanism, so
//! that forward and backward of an operation stand beside each other and nothing is saved that no gradient needs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor,
};
use burn::tensor::Tensor;

/// From the gradient of the result to that of each input; `None` for inputs that need none.
pub(crate) type Gradient = Box<dyn FnOnce(FlexTensor) -> Vec<Option<FlexTensor>> + Send>;

/// What an operation gives: its result and, if any input needs a gradient, how to get it.
pub(crate) struct Outcome {
    pub(crate) result: FlexTensor,
    pub(crate) gradient: Option<Gradient>,
}

impl Outcome {
    /// A result that has no gradient.
    pub(crate) fn of(result: FlexTensor) -> Self {
        Self {
            result,
            gradient: None,
        }
    }
}

type Compute = dyn Fn(Vec<FlexTensor>, &[bool]) -> Outcome + Send + Sync;

/// An operation with its settings, ready to be applied to tensors.
#[derive(Clone)]
pub struct Operation {
    name: &'static str,
    compute: Arc<Compute>,
}

impl Operation {
    /// `compute` gets the inputs and which of them need a gradient.
    pub(crate) fn new(
        name: &'static str,
        compute: impl Fn(Vec<FlexTensor>, &[bool]) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            compute: Arc::new(compute),
        }
    }

    /// Applies the operation to at most three tensors of any ranks.
    pub(crate) fn apply<const D: usize>(self, inputs: Vec<Input>) -> Tensor<D> {
        let mut inputs = inputs.into_iter().map(|input| input.0);
        let result = match (inputs.next(), inputs.next(), inputs.next()) {
            (Some(a), None, _) => Dispatch::unary(a, self),
            (Some(a), Some(b), None) => Dispatch::binary(a, b, self),
            (Some(a), Some(b), Some(c)) => Dispatch::ternary(a, b, c, self),
            (None, ..) => unreachable!("{self:?} has no input"),
        };
        Tensor::from_dispatch(result)
    }

    /// On inputs that need no gradient.
    fn compute<const N: usize>(&self, inputs: [FlexTensor; N]) -> FlexTensor {
        (self.compute)(Vec::from(inputs), &[false; N]).result
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A tensor whose rank is forgotten.
pub(crate) struct Input(FloatTensor<Dispatch>);

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(tensor: Tensor<D>) -> Self {
        Self(tensor.into_dispatch())
    }
}

/// The extension of Burn's backends through which every operation goes.
#[backend_extension(Flex, Autodiff)]
pub trait Operate: Backend {
    /// Applies `operation` to one input.
    fn unary(a: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self>;

    /// Applies `operation` to two inputs.
    fn binary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;

    /// Applies `operation` to three inputs.
    fn ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self>;
}

impl Operate for Flex {
    fn unary(a: FlexTensor, operation: Operation) -> FlexTensor {
        operation.compute([a])
    }

    fn binary(a: FlexTensor, b: FlexTensor, operation: Operation) -> FlexTensor {
        operation.compute([a, b])
    }

    fn ternary(a: FlexTensor, b: FlexTensor, c: FlexTensor, operation: Operation) -> FlexTensor {
        operation.compute([a, b, c])
    }
}

impl<C: CheckpointStrategy> Operate for Autodiff<Flex, C> {
    fn unary(a: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self> {
        record::<C, 1>([a], operation)
    }

    fn binary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<C, 2>([a, b], operation)
    }

    fn ternary(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<C, 3>([a, b, c], operation)
    }
}

/// Computes the operation and records its backward pass.
fn record<C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    operation: Operation,
) -> FloatTensor<Autodiff<Flex, C>> {
    let wanted: Vec<bool> = inputs.iter().map(|input| input.is_tracked()).collect();
    let (tensors, nodes): (Vec<_>, Vec<_>) =
        inputs.into_iter().map(|input| input.into_parts()).unzip();
    let Ok(nodes) = <[_; N]>::try_from(nodes) else {
        unreachable!("as many nodes as inputs")
    };
    let prepared = Run(operation.name).prepare::<C>(nodes).compute_bound();
    let outcome = (operation.compute)(tensors, &wanted);
    match prepared.stateful() {
        OpsKind::Tracked(prepared) => {
            prepared.finish(Recorded::new(outcome.gradient), outcome.result)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(outcome.result),
    }
}

/// The backward pass of the operation of this name.
#[derive(Debug)]
struct Run(&'static str);

/// A backward pass that waits for its gradient. Burn asks its states to be cloneable; only one copy ever runs.
#[derive(Clone)]
struct Recorded(Arc<Mutex<Option<Gradient>>>);

impl Recorded {
    fn new(gradient: Option<Gradient>) -> Self {
        Self(Arc::new(Mutex::new(gradient)))
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorded")
    }
}

impl<const N: usize> Backward<Flex, N> for Run {
    type State = Recorded;

    fn backward(
        self,
        ops: Ops<Recorded, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let mut recorded = ops.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(backward) = recorded.take() else {
            unreachable!("{} is differentiated once", self.0)
        };
        for (parent, gradient) in ops.parents.into_iter().zip(backward(gradient)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
