//! The wrapper as one of Burn's modules: the model's parameters under the model's own paths.

use std::fmt;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Device;

use crate::mixed_precision::MixedPrecision;
use crate::record;

impl<M> MixedPrecision<M> {
    fn with_model(self, change: impl FnOnce(M) -> M) -> Self {
        Self {
            model: change(self.model),
            training: self.training,
        }
    }
}

impl<M: Module> Module for MixedPrecision<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with_model(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with_model(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.with_model(M::train)
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            training: self.training.clone(),
        }
    }

    fn materialize(self) -> Self {
        self.with_model(M::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        self.with_model(|model| model.map(mapper))
    }

    /// The model's record, and in it the state of the run.
    ///
    /// # Panics
    /// If the optimizer is one of Burn's and cannot be serialized.
    fn into_record(self) -> ModuleRecord {
        record::save(self.model, &self.training.lock())
    }

    /// Loads a record with the state of a run, or one of the model alone, which leaves the state as it is.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let model = record::load(self.model, &mut self.training.lock(), record)?;
        Ok(Self {
            model,
            training: self.training,
        })
    }
}

impl<M: fmt::Display> fmt::Display for MixedPrecision<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}
