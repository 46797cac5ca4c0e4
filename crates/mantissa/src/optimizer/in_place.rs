//! Updating a model's parameters where they lie.
//!
//! Burn's modules hand out clones of their tensors, which share their buffer: writing to one copies it. So the tensors
//! are first moved out of the model, with empty ones in their places, which leaves each buffer with one owner, who may
//! write to it. A buffer that somebody else holds (a clone of the model) is copied, and the other owner keeps the old
//! values. A parameter that is stored in fewer bits is widened, updated and rounded back, one after the other, so that
//! there is never more than one of them in f32.

use std::any::Any;
use std::collections::HashMap;

use burn::backend::flex::FlexTensor;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use mantissa_formats::RandomBits;

use super::gradients::ScannedGradients;
use super::groups::Members;
use super::rule::{Rule, Turn};
use super::state::{ParameterState, States};
use crate::flex_tensor::{contiguous, elements, from_flex, into_flex, shape};
use crate::session::Fnv;
use crate::storage::{Form, master};

/// What all parameters of a step have in common.
pub(super) struct Shared<'a> {
    pub(super) rule: &'a Rule,
    pub(super) members: &'a Members,
    pub(super) learning_rate: &'a ModuleLearningRate,
    pub(super) gradient_factor: f32,
    /// Of the random bits of stochastic rounding.
    pub(super) seed: u64,
}

/// One step for every parameter of `model` that has a gradient.
///
/// # Panics
/// If a state is not of its parameter's shape; before anything changes.
pub(super) fn update<M: Module>(
    shared: &Shared,
    states: &mut States,
    model: &mut M,
    gradients: ScannedGradients,
) {
    for (id, shape) in gradients.shapes() {
        let state = states.get(&id);
        assert!(
            state.is_none_or(|state| state.fits(shared.rule, shape)),
            "the optimizer's state of parameter {id} is not of its {} elements: load the records of one checkpoint",
            shape.iter().product::<usize>()
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
        shared,
        states,
        gradients,
        tensors,
        path: Vec::new(),
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
    shared: &'a Shared<'a>,
    states: &'a mut States,
    gradients: ScannedGradients,
    tensors: Tensors,
    path: Vec<String>,
}

impl ModuleMapper for Updater<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

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
            tensor = self.updated(id, tensor, gradient);
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
        gradient: FlexTensor,
    ) -> Tensor<D> {
        // The device carries the strategy of gradient checkpointing; the result is a new leaf of the graph.
        let (device, require_grad) = (tensor.device(), tensor.is_require_grad());
        let dims = tensor.dims();
        let mut stored = into_flex(tensor);
        if stored.dtype() == DType::F32 {
            stored = contiguous(stored);
            self.update(id, &dims, stored.storage_mut::<f32>(), gradient);
        } else {
            stored = self.rounded(id, stored, gradient);
        }
        from_flex(stored, &device).set_require_grad(require_grad)
    }

    /// The update of a parameter that is stored in fewer bits than it is computed with.
    fn rounded(&mut self, id: ParamId, mut stored: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let Some(form) = Form::of(&stored) else {
            panic!(
                "parameter {} is {:?} and nothing says how its updates are rounded: store the model with \
                 mantissa::storage::store",
                self.path.join("."),
                stored.dtype()
            )
        };
        let mut values = contiguous(master(stored.clone()));
        let dims = shape(&values);
        self.update(id, &dims, values.storage_mut::<f32>(), gradient);
        let random = self.random(id);
        if stored.is_contiguous() && form.elements() == stored.layout().num_elements() {
            form.overwrite(&mut stored, elements(&values), random);
            return stored;
        }
        // A view of a stored tensor becomes one of its own.
        Form::new(form.storage(), &dims).store(elements(&values), &dims, Some(random))
    }

    fn update(
        &mut self,
        id: ParamId,
        shape: &[usize],
        parameters: &mut [f32],
        mut gradient: FlexTensor,
    ) {
        let Shared { rule, members, .. } = self.shared;
        let path = self.path.join(".");
        let turn = Turn {
            learning_rate: self.shared.learning_rate.lr_from_param(id, Some(&path)),
            gradient_factor: self.shared.gradient_factor,
            seed: self.shared.seed,
        };
        let member = members.get(id);
        let fresh = || ParameterState::new(rule, shape, member.states);
        let state = self.states.entry(id).or_insert_with(fresh);
        let gradients = gradient.storage_mut::<f32>();
        rule.update(&turn, member, shape, gradients, parameters, state);
    }

    /// The random bits of a parameter's update: a function of the seed, the parameter's steps and its path.
    fn random(&self, id: ParamId) -> RandomBits {
        let steps = self.states.get(&id).map_or(0, |state| state.steps);
        let mut stream = Fnv::default();
        stream.write(&steps.to_le_bytes());
        stream.write(self.path.join(".").as_bytes());
        stream.write(b"update");
        RandomBits::new(self.shared.seed, stream.value())
    }
}
