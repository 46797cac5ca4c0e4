//! The float parameters of a model, with their paths.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

/// A parameter, where the model has it first.
pub(crate) struct Parameter {
    pub(crate) id: ParamId,
    /// The names on the way to it, with dots between them.
    pub(crate) path: String,
    pub(crate) shape: Vec<usize>,
}

impl Parameter {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The float parameters of `model` in its order, those that it has twice once.
pub(crate) fn parameters<M: Module>(model: &M) -> Vec<Parameter> {
    let mut finder = Finder::default();
    model.visit(&mut finder);
    finder.found
}

#[derive(Default)]
struct Finder {
    path: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Finder {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.iter().any(|parameter| parameter.id == param.id) {
            return;
        }
        self.found.push(Parameter {
            id: param.id,
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
        });
    }
}
