//! Updating a model's parameters where they lie.
//!
//! Burn's modules hand out clones of their tensors, which share their buffer: writing to one copies it. So the tensors
//! are first moved out of the model, with empty ones in their places, which leaves each buffer with one owner. On the
//! CPU backend it then becomes a slice and a tensor again without a copy. A buffer that somebody else holds (a clone of
//! the model) is copied, and the other owner keeps the old values.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};

use super::gradients::{ScannedGradients, elements};
use super::rule::Rule;
use super::state::{ParameterState, States};

/// One step of `rule` for every parameter of `model` that has a gradient.
///
/// # Panics
/// If a state is not of its parameter's length; before anything changes.
pub(super) fn update<M: Module>(
    rule: &Rule,
    states: &mut States,
    learning_rate: f64,
    gradient_factor: f32,
    model: &mut M,
    gradients: ScannedGradients,
) {
    for (id, len) in gradients.lengths() {
        let fits = |state: &ParameterState| state.buffers.iter().all(|buffer| buffer.len() == len);
        assert!(
            states.get(&id).is_none_or(fits),
            "the optimizer's state of parameter {id} is not of its {len} elements: load the records of one checkpoint"
        );
    }
    let mut emptier = Emptier {
        gradients: &gradients,
        tensors: HashMap::new(),
    };
    // The assignment drops the model's own handles to the tensors.
    *model = model.clone().map(&mut emptier);
    let tensors = emptier.tensors;
    let mut updater = Updater {
        rule,
        states,
        learning_rate,
        gradient_factor,
        gradients,
        tensors,
    };
    *model = model.clone().map(&mut updater);
}

/// Tensors of any rank, by the parameters they belong to.
type Tensors = HashMap<ParamId, Box<dyn Any>>;

/// Moves the tensors that have gradients out of a model.
struct Emptier<'a> {
    gradients: &'a ScannedGradients,
    tensors: Tensors,
}

impl ModuleMapper for Emptier<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.gradients.contain(param.id) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let nothing = TensorData::new(Vec::<f32>::new(), [0; D]);
        let empty = Tensor::from_data(nothing, (&tensor.device(), DType::F32));
        self.tensors.entry(id).or_insert_with(|| Box::new(tensor));
        Param::from_mapped_value(id, empty, mapper)
    }
}

/// Updates tensors that were moved out of a model and moves them back.
struct Updater<'a> {
    rule: &'a Rule,
    states: &'a mut States,
    learning_rate: f64,
    gradient_factor: f32,
    gradients: ScannedGradients,
    tensors: Tensors,
}

impl ModuleMapper for Updater<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(tensor) = self.tensors.remove(&param.id) else {
            return param;
        };
        let (id, _, mapper) = param.consume();
        let mut tensor = *tensor
            .downcast::<Tensor<D>>()
            .expect("a parameter keeps its rank");
        // A parameter that the model uses twice has its one gradient taken at the first use.
        if let Some(gradient) = self.gradients.remove(id) {
            tensor = self.updated(id, tensor, &gradient);
        }
        self.tensors.insert(id, Box::new(tensor.clone()));
        Param::from_mapped_value(id, tensor, mapper)
    }
}

impl Updater<'_> {
    fn updated<const D: usize>(
        &mut self,
        id: ParamId,
        tensor: Tensor<D>,
        gradient: &TensorData,
    ) -> Tensor<D> {
        let device = tensor.device();
        let require_grad = tensor.is_require_grad();
        let mut data = tensor.into_data();
        let parameters: &mut [f32] = data
            .as_mut_slice()
            .unwrap_or_else(|error| panic!("master weights are f32: {error}"));
        let len = parameters.len();
        let fresh = || ParameterState::new(self.rule, len);
        let state = self.states.entry(id).or_insert_with(fresh);
        self.rule.update(
            self.learning_rate,
            self.gradient_factor,
            elements(gradient),
            parameters,
            state,
        );
        // The device carries the strategy of gradient checkpointing; the result is a new leaf of the graph.
        Tensor::from_data(data, (&device, DType::F32)).set_require_grad(require_grad)
    }
}
