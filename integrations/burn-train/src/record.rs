//! The state of a run within the record of its model.
//!
//! burn-train saves the model's record, so whatever is to come back with the model has to be a tensor in there: the bytes
//! `mantissa.state`, and `mantissa.length`, how many. They are a JSON header after its length, the optimizer's record and the
//! parameters that are stored in fewer bits, which Burn's records cannot hold. The other parameters keep the model's paths, so
//! that the model alone loads the record too, if it is told to
//! [`allow_unused`](burn::store::ModuleRecord::allow_unused) tensors.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use mantissa::checkpoint::Progress;
use mantissa::optimizer::OptimizerRecord;
use mantissa::{AmaxHistories, LossScaler, storage};
use serde::{Deserialize, Serialize};

use crate::training::Training;

/// The version of the state's layout.
const SCHEMA: u32 = 1;

/// What the bytes begin with.
#[derive(Serialize, Deserialize)]
struct Header {
    schema: u32,
    /// As TOML.
    plan: String,
    progress: Progress,
    scaler: LossScaler,
    amaxes: AmaxHistories,
    /// Whether the optimizer is one of Burn's.
    burns_optimizer: bool,
    /// Of the optimizer's record. What follows it are the stored parameters, if there are any.
    optimizer_bytes: usize,
}

/// How long the state is.
#[derive(Module, Debug)]
struct Length {
    length: Param<Tensor<1, Int>>,
}

/// The state and how long it is.
#[derive(Module, Debug)]
struct State {
    length: Param<Tensor<1, Int>>,
    state: Param<Tensor<1, Int>>,
}

impl State {
    /// That it has in a record.
    const TENSORS: usize = 2;
}

/// A model, and beside it, under the name `mantissa`, something else.
#[derive(Clone, Debug)]
struct Beside<M, S> {
    model: M,
    mantissa: S,
}

/// No model.
const NOTHING: Option<Param<Tensor<1>>> = None;

pub(crate) fn save<M: Module>(model: M, training: &Training) -> ModuleRecord {
    let device = device(&model);
    let bytes = state(&model, training).unwrap_or_else(|problem| panic!("{problem}"));
    let stored: Vec<_> = storage::stored(&model)
        .iter()
        .map(|found| found.id)
        .collect();
    let length = TensorData::new(vec![bytes.len() as i64], [1]);
    let len = bytes.len();
    let all = Beside {
        model,
        mantissa: State {
            length: parameter(length, DType::I64, &device),
            state: parameter(TensorData::new(bytes, [len]), DType::U8, &device),
        },
    };
    all.into_record_group(ParamGroup::all().exclude(ParamGroup::from_ids(stored)))
}

pub(crate) fn load<M: Module>(
    model: M,
    training: &mut Training,
    record: ModuleRecord,
) -> Result<M, RecordError> {
    let Some((state, bytes)) = read(&record, &device(&model))? else {
        return stored_as_planned(model.try_load_record(record)?, training);
    };
    let damaged = |problem: String| {
        RecordError::Validation(format!(
            "the state of the run in this record is damaged: {problem}"
        ))
    };
    let (header, optimizer, stored) = parts(&bytes).map_err(damaged)?;

    let plan = training
        .plan
        .to_toml()
        .map_err(|error| damaged(error.to_string()))?;
    let plan_changed = plan != header.plan;
    if plan_changed && !training.plan_may_change {
        return Err(RecordError::Validation(
            "the record is of a run under another plan: configure that plan, or call \
             `MixedPrecision::allow_plan_change` to go on under the new one"
                .into(),
        ));
    }
    header.scaler.check().map_err(damaged)?;
    let optimizer = if header.burns_optimizer {
        OptimizerRecord::from_burn_bytes(optimizer.to_vec())
    } else {
        Ok(OptimizerRecord::Fused(optimizer.to_vec()))
    };
    let optimizer = optimizer.and_then(|record| training.optimizer.clone().load_record(record));
    let optimizer = optimizer.map_err(|error| RecordError::Validation(error.to_string()))?;

    let others = record.len().saturating_sub(State::TENSORS);
    let record = record.allow_partial(!stored.is_empty());
    let all = Beside {
        model,
        mantissa: state,
    };
    let mut model = all.try_load_record(record)?.model;
    if !stored.is_empty() {
        model = storage::load_stored(model, stored, others)
            .map_err(|error| RecordError::Validation(error.to_string()))?;
    }
    if plan_changed {
        model = stored_as_planned(model, training)?;
    }

    training.optimizer = optimizer;
    let amaxes = if plan_changed {
        AmaxHistories::default()
    } else {
        training.scaler = header.scaler;
        header.amaxes
    };
    training.restore(&model, header.progress, amaxes);
    Ok(model)
}

fn stored_as_planned<M: Module>(model: M, training: &Training) -> Result<M, RecordError> {
    storage::store(model, &training.plan)
        .map_err(|error| RecordError::Validation(error.to_string()))
}

/// The bytes of the state.
fn state<M: Module>(model: &M, training: &Training) -> Result<Vec<u8>, String> {
    let record = training.optimizer.to_record();
    let burns_optimizer = matches!(record, OptimizerRecord::Burn(_));
    let optimizer = record.into_bytes().map_err(|error| error.to_string())?;
    let header = Header {
        schema: SCHEMA,
        plan: training.plan.to_toml().map_err(|error| error.to_string())?,
        progress: training.progress,
        scaler: training.scaler.clone(),
        amaxes: training.amaxes(),
        burns_optimizer,
        optimizer_bytes: optimizer.len(),
    };
    let header = serde_json::to_vec(&header).map_err(|error| error.to_string())?;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(optimizer);
    bytes.extend(storage::stored_to_bytes(model).unwrap_or_default());
    Ok(bytes)
}

/// The header, the optimizer's record and the stored parameters.
fn parts(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), String> {
    let ends = || "it is shorter than it says".to_string();
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(ends)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| ends())?;
    let (header, rest) = rest.split_at_checked(length).ok_or_else(ends)?;
    let header: serde_json::Value =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let found = &header["schema"];
    if *found != SCHEMA {
        return Err(format!(
            "it has schema {found}, this program reads schema {SCHEMA}; resume with the version that wrote it"
        ));
    }
    let header: Header = serde_json::from_value(header).map_err(|error| error.to_string())?;
    let (optimizer, stored) = rest
        .split_at_checked(header.optimizer_bytes)
        .ok_or_else(ends)?;
    Ok((header, optimizer, stored))
}

/// The state in `record`, as parameters of the right lengths and as bytes; `None` if there is none.
fn read(record: &ModuleRecord, device: &Device) -> Result<Option<(State, Vec<u8>)>, RecordError> {
    // A record tells no shapes, and fills only parameters of the right ones: so the length comes first, which is one number.
    let some = || record.clone().allow_partial(true).allow_unused(true);
    let unknown = || parameter(TensorData::new(vec![-1_i64], [1]), DType::I64, device);
    let length = Beside {
        model: NOTHING,
        mantissa: Length { length: unknown() },
    };
    let length = length.try_load_record(some())?.mantissa.length;
    let Ok(len) = usize::try_from(length.val().into_scalar::<i64>()) else {
        return Ok(None);
    };
    let state = TensorData::new(vec![0_u8; len], [len]);
    let state = Beside {
        model: NOTHING,
        mantissa: State {
            length: unknown(),
            state: parameter(state, DType::U8, device),
        },
    };
    let state = state.try_load_record(some())?.mantissa;
    let bytes = state.state.val().into_data();
    let bytes = bytes.try_to_vec::<u8>();
    let bytes = bytes.map_err(|error| RecordError::Validation(format!("{error:?}")))?;
    Ok(Some((state, bytes)))
}

fn parameter(data: TensorData, dtype: DType, device: &Device) -> Param<Tensor<1, Int>> {
    Param::initialized(ParamId::new(), Tensor::from_data(data, (device, dtype)))
}

fn device<M: Module>(model: &M) -> Device {
    let first = model.devices().into_iter().next();
    first.unwrap_or_default().without_autodiff()
}

impl<M: Module, S: Module> Module for Beside<M, S> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.mantissa
            .collect_devices(self.model.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            model: self.model.fork(device),
            mantissa: self.mantissa.fork(device),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            model: self.model.to_device(device),
            mantissa: self.mantissa.to_device(device),
        }
    }

    fn train(self) -> Self {
        Self {
            model: self.model.train(),
            mantissa: self.mantissa.train(),
        }
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            mantissa: self.mantissa.valid(),
        }
    }

    fn materialize(self) -> Self {
        Self {
            model: self.model.materialize(),
            mantissa: self.mantissa.materialize(),
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
        visitor.enter_module("mantissa", "Struct:Beside");
        self.mantissa.visit(visitor);
        visitor.exit_module("mantissa", "Struct:Beside");
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        let model = self.model.map(mapper);
        mapper.enter_module("mantissa", "Struct:Beside");
        let mantissa = self.mantissa.map(mapper);
        mapper.exit_module("mantissa", "Struct:Beside");
        Self { model, mantissa }
    }
}
