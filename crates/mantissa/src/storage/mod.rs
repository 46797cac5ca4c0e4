//! Parameters that lie in memory in fewer bytes than they are computed with.
//!
//! [`store`] turns the weights of a model's sites into what a plan's [storage table](mantissa_plan::StorageTable) says:
//! FP16 or BF16 (tensors of Burn's own types), BF16 with the 16 bits that make it the exact f32 again, or bytes with
//! scales. No other copy is kept. The modules of [`nn`](crate::nn) widen a weight into memory that is used again, for
//! the one pass that reads it, and [`MasterOptimizer`](crate::MasterOptimizer) widens it, updates in f32 and rounds the
//! result back as its storage says, stochastically or to nearest.
//!
//! ```
//! use burn::tensor::Device;
//! use mantissa::plan::{Plan, Recipe};
//! use mantissa::{Session, nn, storage};
//!
//! let model = nn::LinearConfig::new(128, 64).init(&Device::flex().autodiff());
//! let recipe = Recipe::from_toml(r#"
//!     schema = 1
//!     name = "int8-weights"
//!     [storage]
//!     parameters = "int8/channel/stochastic"
//! "#)?;
//! let plan = Plan::from_recipe(&recipe, &mantissa::sites(&model))?;
//! let model = storage::store(model, &plan)?;
//! let session = Session::bind(&model, &plan, 42)?;
//!
//! let [weight] = &storage::stored(&model)[..] else { panic!("the bias stays f32") };
//! assert_eq!((weight.path.as_str(), weight.bytes), ("weight", 128 * 64 + 4 * 128));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is no float to Burn, its operations refuse: a stored weight of 8 bits that is used outside the modules of this
//! crate ends in a panic, never in wrong numbers. [`widened`] gives back a model that Burn can do anything with.

mod form;
mod halves;
mod record;

use std::collections::{HashMap, HashSet};

use burn::backend::flex::FlexTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};
use mantissa_plan::{Plan, Site, SiteStorage, Storage, StorageError};

use crate::flex_tensor::{contiguous, elements, from_flex, into_flex, shape};
use crate::operation::{Gradient, Operation, Outcome};
use crate::sites::{SiteKey, keyed_sites};
use record::{load, parameters, to_bytes};

pub(crate) use form::{Form, master, widened as widened_flex};

/// Rounds the weights of `model` to the storage that `plan` gives to their sites; to nearest, whatever updates do later.
/// Weights of fewer elements than the plan's table stores, and parameters that are no site's weight, become or stay f32.
/// Parameter ids stay, and what is stored as planned already is left as it is.
///
/// # Errors
/// If the plan's storage table does not fit the model.
pub fn store<M: Module>(model: M, plan: &Plan) -> Result<M, StorageError> {
    let of_weights = of_weights(&model, plan)?.into_iter();
    Ok(model.map(&mut Storer {
        wanted: of_weights.map(|(id, of)| (id, of.parameters)).collect(),
        min_elements: plan.storage.min_elements,
    }))
}

/// What `plan` says of the weights of the sites of `model`, however small they are.
///
/// # Errors
/// If its storage table does not fit the model.
pub(crate) fn of_weights<M: Module>(
    model: &M,
    plan: &Plan,
) -> Result<HashMap<ParamId, SiteStorage>, StorageError> {
    let (keys, sites): (Vec<SiteKey>, Vec<Site>) = keyed_sites(model).into_iter().unzip();
    let assigned = plan.storage.assign(&sites)?;
    let weights = keys.into_iter().zip(assigned);
    let weights = weights.filter_map(|(key, storage)| match key {
        SiteKey::Weight(id) => Some((id, storage)),
        SiteKey::Scores(_) | SiteKey::Context(_) => None,
    });
    Ok(weights.collect())
}

/// `model` with all its parameters in f32: of `bf16+16` the exact values, of everything else those that products read.
pub fn widened<M: Module>(model: M) -> M {
    model.map(&mut Storer {
        wanted: HashMap::new(),
        min_elements: 0,
    })
}

/// A parameter that is not stored as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Where the model has it first.
    pub path: String,
    /// Its id.
    pub id: ParamId,
    /// How it is stored.
    pub storage: Storage,
    /// Its elements.
    pub elements: usize,
    /// Bytes of its codes and of what belongs to them.
    pub bytes: usize,
}

/// The parameters of `model` that are not stored as f32, in its order.
pub fn stored<M: Module>(model: &M) -> Vec<Stored> {
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    visit(model, |path, id, _, form| {
        if seen.insert(id) {
            found.push(Stored {
                path: path.to_string(),
                id,
                storage: form.storage(),
                elements: form.elements(),
                bytes: form.codes().len() + form.rest().len(),
            });
        }
    });
    found
}

/// What is wrong with the bytes of stored parameters.
#[derive(Debug, thiserror::Error)]
#[error("the stored parameters cannot be read: {0}")]
pub struct StoredError(String);

/// The parameters of `model` that are not stored as f32, with their ids, as a safetensors file; `None` if there are none.
/// They are missing from Burn's records, which know floats only.
pub fn stored_to_bytes<M: Module>(model: &M) -> Option<Vec<u8>> {
    to_bytes(model)
}

/// `model` with the parameters that [`stored_to_bytes`] saved; its `others`, so many, come from a record of Burn's, which a
/// model of which parameters are missing loads only if it is told to
/// [`allow_partial`](burn::store::ModuleRecord::allow_partial).
///
/// # Errors
/// If the bytes are damaged or of another model, or if some parameter comes from neither.
pub fn load_stored<M: Module>(model: M, bytes: &[u8], others: usize) -> Result<M, StoredError> {
    let (model, loaded) = load(model, bytes).map_err(StoredError)?;
    let (found, expected) = (others + loaded, parameters(&model));
    if found != expected {
        let problem = format!("with the others there are {found} instead of {expected}");
        return Err(StoredError(problem));
    }
    Ok(model)
}

/// A parameter's value for operations that know f32 only; the gradient passes straight through.
pub(crate) fn read<const D: usize>(parameter: Tensor<D>) -> Tensor<D> {
    if parameter.dtype() == DType::F32 {
        return parameter;
    }
    let widen = Operation::new("widen", |inputs, wanted| {
        let Some(tensor) = inputs.into_iter().next() else {
            unreachable!("one parameter")
        };
        Outcome {
            result: widened_flex(tensor),
            gradient: wanted
                .contains(&true)
                .then(|| -> Gradient { Box::new(|grad| vec![Some(grad)]) }),
        }
    });
    widen.apply(vec![parameter.into()])
}

/// Turns parameters into what is wanted of them, f32 where nothing is.
struct Storer {
    wanted: HashMap<ParamId, Storage>,
    min_elements: usize,
}

impl Storer {
    fn storage(&self, id: ParamId, elements: usize) -> Storage {
        let wanted = self.wanted.get(&id).copied();
        wanted
            .filter(|_| elements >= self.min_elements)
            .unwrap_or_default()
    }
}

impl ModuleMapper for Storer {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let wanted = self.storage(param.id, param.lazy_shape().num_elements());
        let tensor = param.val();
        let is_plain = tensor.dtype() == DType::F32;
        if is_plain && wanted == Storage::Fp32 {
            return param;
        }
        let (device, require_grad) = (tensor.device(), tensor.is_require_grad());
        let tensor = into_flex(tensor);
        if Form::of(&tensor).is_some_and(|form| form.storage() == wanted) {
            return param;
        }
        let values = contiguous(master(tensor));
        let stored = match wanted {
            Storage::Fp32 => values,
            _ => {
                let shape = shape(&values);
                Form::new(wanted, &shape).store(elements(&values), &shape, None)
            }
        };
        let stored = from_flex(stored, &device).set_require_grad(require_grad);
        let (id, _, mapper) = param.consume();
        Param::from_mapped_value(id, stored, mapper)
    }
}

/// Shows every stored parameter of `model` with its path and id; those that the model has twice, twice.
fn visit<M: Module>(model: &M, show: impl FnMut(&str, ParamId, FlexTensor, Form)) {
    model.visit(&mut Finder {
        path: Vec::new(),
        show,
    });
}

struct Finder<F> {
    path: Vec<String>,
    show: F,
}

impl<F: FnMut(&str, ParamId, FlexTensor, Form)> ModuleVisitor for Finder<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if tensor.dtype() == DType::F32 {
            return;
        }
        let tensor = into_flex(tensor);
        if let Some(form) = Form::of(&tensor) {
            (self.show)(&self.path.join("."), param.id, tensor, form);
        }
    }
}
