//! The gradients of a step, each read once to know whether it is finite and how large it is.

use std::collections::HashMap;

use burn::backend::flex::FlexTensor;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Gradients, Tensor};
use mantissa_kernels::reduce::{Scan, scan};
use mantissa_metrics::ExponentHistogram;

use super::step::NonFinite;
use crate::flex_tensor::{contiguous, elements, from_flex, into_flex};
use crate::parameters::parameters;
use crate::storage::widened_flex;

/// The gradients of a model's parameters, still scaled, each as it was stored.
#[derive(Default)]
pub(super) struct ScannedGradients {
    stored: HashMap<ParamId, FlexTensor>,
    square_sum: f64,
    amax: f32,
    non_finite: Vec<(ParamId, NonFinite)>,
}

impl ScannedGradients {
    /// Takes the gradients of `model`'s parameters out of Burn's. The buffers are Burn's own wherever nobody else
    /// holds them.
    pub(super) fn take<M: Module>(gradients: GradientsParams, model: &M) -> Self {
        let mut taker = Taker {
            gradients,
            scanned: Self::default(),
        };
        model.visit(&mut taker);
        taker.scanned
    }

    /// The L2 norm of all finite elements together, still scaled.
    pub(super) fn norm(&self) -> f64 {
        self.square_sum.sqrt()
    }

    pub(super) fn are_finite(&self) -> bool {
        self.non_finite.is_empty()
    }

    /// The largest finite magnitude, still scaled.
    pub(super) fn amax(&self) -> f32 {
        self.amax
    }

    /// The exponents of all elements, still scaled.
    pub(super) fn exponents(&self) -> ExponentHistogram {
        let mut exponents = ExponentHistogram::default();
        for stored in self.stored.values() {
            exponents.push(elements(&wide(stored.clone())));
        }
        exponents
    }

    /// The parameters whose gradients are not finite, by their paths in `model`.
    pub(super) fn non_finite<M: Module>(&self, model: &M) -> Vec<NonFinite> {
        let mut paths = paths(model);
        let named = self.non_finite.iter().map(|(id, found)| NonFinite {
            parameter: paths.remove(id).unwrap_or_default(),
            ..found.clone()
        });
        named.collect()
    }

    /// The parameters that have a gradient, with their shapes.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (ParamId, &[usize])> {
        let stored = self.stored.iter();
        stored.map(|(&id, stored)| (id, &stored.layout().shape()[..]))
    }

    /// Whether the parameter has a gradient.
    pub(super) fn contain(&self, id: ParamId) -> bool {
        self.stored.contains_key(&id)
    }

    /// The gradient of a parameter in f32, contiguous, once.
    pub(super) fn remove(&mut self, id: ParamId) -> Option<FlexTensor> {
        self.stored.remove(&id).map(wide)
    }

    /// The parameters that have gradients, in the order of `model`.
    pub(super) fn order<M: Module>(&self, model: &M) -> Vec<ParamId> {
        let ids = parameters(model).into_iter().map(|parameter| parameter.id);
        ids.filter(|&id| self.contain(id)).collect()
    }

    /// How many elements the gradient of a parameter has; 0 for none.
    pub(super) fn len_of(&self, id: ParamId) -> usize {
        self.stored
            .get(&id)
            .map_or(0, |stored| stored.layout().num_elements())
    }

    /// The gradients that are not finite.
    pub(super) fn found(&self) -> &[(ParamId, NonFinite)] {
        &self.non_finite
    }

    /// Lets `change` change the gradients of `order`, from now on in f32, and scans them again.
    pub(super) fn replace(&mut self, order: &[ParamId], change: impl FnOnce(&mut [&mut [f32]])) {
        let mut wide: Vec<FlexTensor> = order.iter().filter_map(|&id| self.remove(id)).collect();
        let mut slices: Vec<&mut [f32]> = wide.iter_mut().map(FlexTensor::storage_mut).collect();
        change(&mut slices);
        *self = Self::default();
        for (&id, gradient) in order.iter().zip(wide) {
            self.insert(id, gradient);
        }
    }

    /// Forgets the gradients, of which these are not finite on some rank; the largest finite magnitude is `amax`.
    pub(super) fn give_up(&mut self, non_finite: Vec<(ParamId, NonFinite)>, amax: f32) {
        *self = Self {
            non_finite,
            amax,
            ..Self::default()
        };
    }

    /// Takes a gradient in.
    fn insert(&mut self, id: ParamId, stored: FlexTensor) {
        let scan = scan_stored(&stored);
        self.square_sum += scan.square_sum;
        self.amax = self.amax.max(scan.amax);
        if scan.non_finite > 0 {
            let found = NonFinite {
                parameter: String::new(),
                count: scan.non_finite,
                elements: stored.layout().num_elements() as u64,
                amax: scan.amax,
            };
            self.non_finite.push((id, found));
        }
        self.stored.insert(id, stored);
    }

    /// The gradients as Burn's optimizers take them, multiplied by `factor`.
    pub(super) fn into_params<M: Module>(self, model: &M, factor: f32) -> GradientsParams {
        let mut giver = Giver {
            stored: self.stored,
            factor,
            gradients: GradientsParams::new(),
        };
        model.visit(&mut giver);
        giver.gradients
    }
}

/// A stored tensor in f32, in the order of its elements.
fn wide(stored: FlexTensor) -> FlexTensor {
    contiguous(widened_flex(stored))
}

struct Taker {
    gradients: GradientsParams,
    scanned: ScannedGradients,
}

impl ModuleVisitor for Taker {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        self.scanned.insert(param.id, into_flex(gradient));
    }
}

/// What a tensor holds, whatever it is stored as.
fn scan_stored(stored: &FlexTensor) -> Scan {
    scan(elements(&wide(stored.clone())))
}

/// The gradients of `model`'s parameters, each in f32.
pub(crate) fn by_parameter<M: Module>(gradients: Gradients, model: &M) -> GradientsParams {
    let mut widener = Widener(GradientsParams::from_grads(gradients, model));
    model.visit(&mut widener);
    widener.0
}

struct Widener(GradientsParams);

impl ModuleVisitor for Widener {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.0.remove::<D>(param.id) else {
            return;
        };
        let gradient = if gradient.dtype() == DType::F32 {
            gradient
        } else {
            let device = gradient.device();
            from_flex(wide(into_flex(gradient)), &device)
        };
        self.0.register(param.id, gradient);
    }
}

struct Giver {
    stored: HashMap<ParamId, FlexTensor>,
    factor: f32,
    gradients: GradientsParams,
}

impl ModuleVisitor for Giver {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(stored) = self.stored.remove(&param.id) else {
            return;
        };
        let device = param.lazy_device().without_autodiff();
        let mut gradient: Tensor<D> = from_flex(wide(stored), &device);
        if self.factor != 1.0 {
            gradient = gradient.mul_scalar(self.factor);
        }
        self.gradients.register(param.id, gradient);
    }
}

/// The parameters of `model` that hold infinities or NaNs themselves, in the model's order: an update broke them, and
/// nothing computed with them is finite.
pub fn non_finite_weights<M: Module>(model: &M) -> Vec<NonFinite> {
    let mut weights = Weights {
        paths: paths(model),
        broken: Vec::new(),
    };
    model.visit(&mut weights);
    weights.broken
}

struct Weights {
    /// Of those that have not been looked at.
    paths: HashMap<ParamId, String>,
    broken: Vec<NonFinite>,
}

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Taken out, so that a parameter that two modules share is looked at once.
        let Some(parameter) = self.paths.remove(&param.id) else {
            return;
        };
        let stored = into_flex(param.val());
        let scan = scan_stored(&stored);
        if scan.non_finite > 0 {
            self.broken.push(NonFinite {
                parameter,
                count: scan.non_finite,
                elements: stored.layout().num_elements() as u64,
                amax: scan.amax,
            });
        }
    }
}

/// Where each parameter is found first.
fn paths<M: Module>(model: &M) -> HashMap<ParamId, String> {
    let found = parameters(model).into_iter();
    found
        .map(|parameter| (parameter.id, parameter.path))
        .collect()
}
