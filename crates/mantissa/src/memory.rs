//! What the parameters of a model take of memory while it trains, copy by copy.

use std::collections::HashMap;

use burn::module::{Module, ParamId};
use mantissa_plan::{Plan, Storage, StorageError};

use crate::optimizer::MasterOptimizer;
use crate::parameters::parameters;
use crate::storage::{of_weights, stored};

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
        let storage = of_weights(model, plan)?;
        let stored: HashMap<ParamId, usize> = stored(model)
            .into_iter()
            .map(|stored| (stored.id, stored.bytes))
            .collect();
        let mut found = Self {
            parameters: 0,
            weights: 0,
            gradients: 0,
            states: optimizer.expected_states(model),
        };
        for parameter in parameters(model) {
            let elements = parameter.elements();
            let gradient = storage
                .get(&parameter.id)
                .filter(|_| elements >= plan.storage.min_elements)
                .map_or(Storage::Fp32, |storage| storage.gradients);
            found.parameters += elements;
            found.weights += stored.get(&parameter.id).copied().unwrap_or(4 * elements);
            found.gradients += (gradient.bytes_per_element() * elements as f64) as usize;
        }
        Ok(found)
    }

    /// All copies together.
    pub fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|(_, bytes)| bytes).sum();
        self.weights + self.gradients + states
    }
}
