//! What the parameters of a model take of memory while it trains, copy by copy.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};
use mantissa_plan::{Plan, Site, Storage, StorageError};

use crate::optimizer::MasterOptimizer;
use crate::sites::{SiteKey, keyed_sites};
use crate::storage::stored;

/// Bytes of every copy of a model's parameters between the backward pass and the update, when there are most of them. Products
/// read the master weights themselves; there is no working copy beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterMemory {
    /// Elements of all parameters.
    pub parameters: usize,
    /// The master weights, with the scales and remainders of those that are stored.
    pub weights: usize,
    /// The gradients, without the scales of those that are stored.
    pub gradients: usize,
    /// Each buffer of the optimizer, by name; empty for one of Burn's own.
    pub states: Vec<(&'static str, usize)>,
}

impl ParameterMemory {
    /// Of a model stored as `plan` says (see [`storage::store`](crate::storage::store)), of which every parameter has a gradient.
    ///
    /// # Errors
    /// If the plan's storage table does not fit the model.
    pub fn expected<M: Module>(
        model: &M,
        plan: &Plan,
        optimizer: &MasterOptimizer,
    ) -> Result<Self, StorageError> {
        let (keys, sites): (Vec<SiteKey>, Vec<Site>) = keyed_sites(model).into_iter().unzip();
        let assigned = plan.storage.assign(&sites)?;
        let of_sites = keys.into_iter().zip(assigned);
        let gradients = of_sites.filter_map(|(key, storage)| match key {
            SiteKey::Weight(id) => Some((id, storage.gradients)),
            SiteKey::Scores(_) | SiteKey::Context(_) => None,
        });
        let mut counter = Counter {
            gradients: gradients.collect(),
            min_elements: plan.storage.min_elements,
            seen: HashSet::new(),
            found: Self {
                parameters: 0,
                weights: stored(model).iter().map(|stored| stored.bytes).sum(),
                gradients: 0,
                states: optimizer.expected_states(model),
            },
        };
        model.visit(&mut counter);
        Ok(counter.found)
    }

    /// All copies together.
    pub fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|(_, bytes)| bytes).sum();
        self.weights + self.gradients + states
    }
}

struct Counter {
    gradients: HashMap<ParamId, Storage>,
    min_elements: usize,
    seen: HashSet<ParamId>,
    found: ParameterMemory,
}

impl ModuleVisitor for Counter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.seen.insert(param.id) {
            return;
        }
        let elements = param.lazy_shape().num_elements();
        self.found.parameters += elements;
        if param.val().dtype() == DType::F32 {
            self.found.weights += 4 * elements;
        }
        let storage = self.gradients.get(&param.id).copied();
        let storage = storage.filter(|_| elements >= self.min_elements);
        let bytes = storage.unwrap_or_default().bytes_per_element();
        self.found.gradients += (bytes * elements as f64) as usize;
    }
}
