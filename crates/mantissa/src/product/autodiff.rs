//! The backward passes of [`ProductOps`].

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, TensorMetadata, tensor::FloatTensor};
use mantissa_plan::Pass;

use super::{ProductCall, ProductOps};

#[derive(Debug)]
struct ProductBackward;

impl<B: ProductOps> Backward<B, 2> for ProductBackward {
    type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>, ProductCall);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [lhs_node, rhs_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (lhs, rhs, call) = ops.state;
        if let (Some(node), Some(rhs)) = (lhs_node, rhs) {
            let lhs_grad = B::product(grad.clone(), rhs, call.with_pass(Pass::GradLhs));
            grads.register::<B>(node.id, lhs_grad);
        }
        if let (Some(node), Some(lhs)) = (rhs_node, lhs) {
            let rhs_grad = B::product(lhs, grad, call.with_pass(Pass::GradRhs));
            grads.register::<B>(node.id, rhs_grad);
        }
    }
}

#[derive(Debug)]
struct ObserveBackward;

impl<B: ProductOps> Backward<B, 1> for ObserveBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, ProductCall);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (lhs, rhs, call) = ops.state;
        let grad = B::sample(lhs, rhs, grad, call);
        if let Some(node) = node {
            grads.register::<B>(node.id, grad);
        }
    }
}

#[derive(Debug)]
struct StraightThrough;

impl<B: ProductOps> Backward<B, 1> for StraightThrough {
    type State = ();

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, grad);
        }
    }
}

impl<B: ProductOps, C: CheckpointStrategy> ProductOps for Autodiff<B, C> {
    fn product(
        left: FloatTensor<Self>,
        right: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self> {
        debug_assert_eq!(call.pass, Pass::Forward, "Burn has no double backward");
        let (lhs_tracked, rhs_tracked) = (left.is_tracked(), right.is_tracked());
        match ProductBackward
            .prepare::<C>([left.node(), right.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (lhs, rhs) = (left.into_primitive(), right.into_primitive());
                let output = B::product(lhs.clone(), rhs.clone(), call.clone());
                let state = (rhs_tracked.then_some(lhs), lhs_tracked.then_some(rhs), call);
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::product(
                left.into_primitive(),
                right.into_primitive(),
                call,
            )),
        }
    }

    fn observe(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        output: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self> {
        debug_assert!(output.shape().num_dims() >= 2);
        match ObserveBackward
            .prepare::<C>([output.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(
                (lhs.into_primitive(), rhs.into_primitive(), call),
                output.into_primitive(),
            ),
            OpsKind::UnTracked(prep) => prep.finish(output.into_primitive()),
        }
    }

    fn sample(
        _lhs: FloatTensor<Self>,
        _rhs: FloatTensor<Self>,
        _grad: FloatTensor<Self>,
        _call: ProductCall,
    ) -> FloatTensor<Self> {
        unreachable!("gradients are sampled in the backward pass, on the inner backend")
    }

    fn round_table(values: FloatTensor<Self>, call: ProductCall) -> FloatTensor<Self> {
        match StraightThrough
            .prepare::<C>([values.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish((), B::round_table(values.into_primitive(), call))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::round_table(values.into_primitive(), call)),
        }
    }

    fn scan(values: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::FloatTensorPrimitive::new(B::scan(values.into_primitive()))
    }
}
