//! The gradients of several batches as those of one.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};
use std::collections::HashSet;

use crate::scaler::ScaledGradients;
use crate::storage::read;

/// Averages the gradients of micro-batches, for batches that do not fit into memory. A micro-batch whose gradients are not finite
/// makes those of the whole batch not finite, so that its step is skipped.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use mantissa::nn::LinearConfig;
/// use mantissa::optimizer::{AdamWConfig, GradientAccumulator, MasterOptimizer};
/// use mantissa::scaler::LossScaler;
///
/// let device = Device::flex().autodiff();
/// let mut model = LinearConfig::new(8, 4).init(&device);
/// let mut optimizer = MasterOptimizer::new(AdamWConfig::new());
/// let mut scaler = LossScaler::constant(1024.0);
///
/// let mut accumulator = GradientAccumulator::new();
/// for _ in 0..4 {
///     let input = Tensor::<2>::random([16, 8], Distribution::Default, &device);
///     let loss = model.forward(input).powf_scalar(2.0).mean();
///     accumulator.push(&model, scaler.scale(loss).backward());
/// }
/// let gradients = accumulator.finish(&model).expect("something was pushed");
/// let _step = optimizer.step(1e-3, &mut model, gradients, &mut scaler);
/// ```
#[derive(Default)]
pub struct GradientAccumulator {
    sum: Option<ScaledGradients>,
    count: u32,
}

impl GradientAccumulator {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of a micro-batch with respect to the parameters of `model`.
    ///
    /// # Panics
    /// If its loss was scaled otherwise than those before: the scaler moves in the optimizer's step, not between micro-batches.
    pub fn push<M: Module>(&mut self, model: &M, gradients: ScaledGradients) {
        self.count += 1;
        let Some(sum) = self.sum.take() else {
            self.sum = Some(gradients);
            return;
        };
        assert_eq!(
            sum.loss_scale, gradients.loss_scale,
            "the micro-batches of a step have one loss scale"
        );
        let mut adder = Adder {
            from: gradients.gradients,
            to: sum.gradients,
            seen: HashSet::new(),
        };
        model.visit(&mut adder);
        self.sum = Some(ScaledGradients {
            gradients: adder.to,
            loss: sum.loss + gradients.loss,
            loss_scale: sum.loss_scale,
        });
    }

    /// The micro-batches added since the last [`finish`](Self::finish).
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The mean of the gradients and of the losses, and an empty accumulator; `None` if nothing was added.
    pub fn finish<M: Module>(&mut self, model: &M) -> Option<ScaledGradients> {
        let count = std::mem::take(&mut self.count);
        let sum = self.sum.take()?;
        if count == 1 {
            return Some(sum);
        }
        let factor = f64::from(count).recip();
        let mut divider = Divider {
            gradients: sum.gradients,
            factor,
            seen: HashSet::new(),
        };
        model.visit(&mut divider);
        Some(ScaledGradients {
            gradients: divider.gradients,
            loss: sum.loss.mul_scalar(factor),
            loss_scale: sum.loss_scale,
        })
    }
}

/// Adds gradients to others, parameter by parameter.
struct Adder {
    from: Gradients,
    to: Gradients,
    /// A parameter that the model uses twice has one gradient.
    seen: HashSet<ParamId>,
}

impl ModuleVisitor for Adder {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parameter = param.val();
        if !self.seen.insert(param.id) || !parameter.is_require_grad() {
            return;
        }
        let Some(addend) = parameter.grad_remove(&mut self.from) else {
            return;
        };
        let sum = match parameter.grad_remove(&mut self.to) {
            Some(sum) => read(sum) + read(addend),
            None => addend,
        };
        parameter.grad_replace(&mut self.to, sum);
    }
}

/// Multiplies gradients, parameter by parameter.
struct Divider {
    gradients: Gradients,
    factor: f64,
    seen: HashSet<ParamId>,
}

impl ModuleVisitor for Divider {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parameter = param.val();
        if !self.seen.insert(param.id) || !parameter.is_require_grad() {
            return;
        }
        if let Some(sum) = parameter.grad_remove(&mut self.gradients) {
            parameter.grad_replace(&mut self.gradients, read(sum).mul_scalar(self.factor));
        }
    }
}
