//! The gradients of a step, each read once to know whether it is finite and how large it is.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use mantissa_kernels::reduce::scan;
use mantissa_metrics::ExponentHistogram;

use super::step::NonFinite;

/// The gradients of a model's parameters, still scaled.
#[derive(Default)]
pub(super) struct ScannedGradients {
    data: HashMap<ParamId, TensorData>,
    square_sum: f64,
    amax: f32,
    non_finite: Vec<(ParamId, NonFinite)>,
}

impl ScannedGradients {
    /// Takes the gradients of `model`'s parameters out of Burn's. The buffers are Burn's own wherever nobody else
    /// holds them.
    ///
    /// # Panics
    /// If a gradient is not f32.
    pub(super) fn take<M: Module>(gradients: Gradients, model: &M) -> Self {
        let mut taker = Taker {
            gradients: GradientsParams::from_grads(gradients, model),
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
        for data in self.data.values() {
            exponents.push(elements(data));
        }
        exponents
    }

    /// The parameters whose gradients are not finite, by their paths in `model`.
    pub(super) fn non_finite<M: Module>(&self, model: &M) -> Vec<NonFinite> {
        let mut paths = Paths::default();
        model.visit(&mut paths);
        let named = self.non_finite.iter().map(|(id, found)| NonFinite {
            parameter: paths.of.remove(id).unwrap_or_default(),
            ..found.clone()
        });
        named.collect()
    }

    /// The parameters that have a gradient, with their numbers of elements.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (ParamId, usize)> {
        self.data
            .iter()
            .map(|(&id, data)| (id, data.num_elements()))
    }

    /// Whether the parameter has a gradient.
    pub(super) fn contain(&self, id: ParamId) -> bool {
        self.data.contains_key(&id)
    }

    /// The gradient of a parameter, once.
    pub(super) fn remove(&mut self, id: ParamId) -> Option<TensorData> {
        self.data.remove(&id)
    }

    /// The gradients as Burn's optimizers take them, multiplied by `factor`.
    pub(super) fn into_params<M: Module>(self, model: &M, factor: f32) -> GradientsParams {
        let mut giver = Giver {
            data: self.data,
            factor,
            gradients: GradientsParams::new(),
        };
        model.visit(&mut giver);
        giver.gradients
    }
}

/// The elements of a gradient.
pub(super) fn elements(gradient: &TensorData) -> &[f32] {
    gradient
        .as_slice()
        .unwrap_or_else(|error| panic!("master weights and their gradients are f32: {error}"))
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
        let data = gradient.into_data();
        let scan = scan(elements(&data));
        self.scanned.square_sum += scan.square_sum;
        self.scanned.amax = self.scanned.amax.max(scan.amax);
        if scan.non_finite > 0 {
            let found = NonFinite {
                parameter: String::new(),
                count: scan.non_finite,
                elements: data.num_elements() as u64,
                amax: scan.amax,
            };
            self.scanned.non_finite.push((param.id, found));
        }
        self.scanned.data.insert(param.id, data);
    }
}

struct Giver {
    data: HashMap<ParamId, TensorData>,
    factor: f32,
    gradients: GradientsParams,
}

impl ModuleVisitor for Giver {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(data) = self.data.remove(&param.id) else {
            return;
        };
        let device = param.lazy_device().without_autodiff();
        let mut gradient = Tensor::<D>::from_data(data, (&device, DType::F32));
        if self.factor != 1.0 {
            gradient = gradient.mul_scalar(self.factor);
        }
        self.gradients.register(param.id, gradient);
    }
}

/// The parameters of `model` that hold infinities or NaNs themselves, in the model's order: an update broke them, and
/// nothing computed with them is finite.
pub fn non_finite_weights<M: Module>(model: &M) -> Vec<NonFinite> {
    let mut paths = Paths::default();
    model.visit(&mut paths);
    let mut weights = Weights {
        paths,
        broken: Vec::new(),
    };
    model.visit(&mut weights);
    weights.broken
}

struct Weights {
    paths: Paths,
    broken: Vec<NonFinite>,
}

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Taken out, so that a parameter that two modules share is looked at once.
        let Some(parameter) = self.paths.of.remove(&param.id) else {
            return;
        };
        let data = param.val().into_data().convert::<f32>();
        let scan = scan(elements(&data));
        if scan.non_finite > 0 {
            self.broken.push(NonFinite {
                parameter,
                count: scan.non_finite,
                elements: data.num_elements() as u64,
                amax: scan.amax,
            });
        }
    }
}

/// Where each parameter is found first.
#[derive(Default)]
struct Paths {
    path: Vec<String>,
    of: HashMap<ParamId, String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.of
            .entry(param.id)
            .or_insert_with(|| self.path.join("."));
    }
}
