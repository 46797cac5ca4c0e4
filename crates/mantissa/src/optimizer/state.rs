//! What an optimizer remembers of each parameter, in memory and in checkpoints.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::rule::Rule;

/// The key of the rule's name in a record's metadata.
const RULE: &str = "rule";
/// The name of a parameter's step count, beside its buffers.
const STEPS: &str = "steps";

/// What a [`Rule`] remembers of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ParameterState {
    /// Steps taken.
    pub(super) steps: u64,
    /// In the order of [`Rule::buffers`].
    pub(super) buffers: Vec<Vec<f32>>,
}

impl ParameterState {
    /// Before the first step of a parameter of `len` elements.
    pub(super) fn new(rule: &Rule, len: usize) -> Self {
        Self {
            steps: 0,
            buffers: rule.buffers().iter().map(|_| vec![0.0; len]).collect(),
        }
    }
}

/// An optimizer's state, keyed by parameter id: what [`MasterOptimizer::to_record`](super::MasterOptimizer::to_record)
/// gives.
pub enum OptimizerRecord {
    /// Of this crate's rules, as a safetensors file: for each parameter the tensors `<id>.steps` and `<id>.<buffer>`,
    /// and the rule's name as metadata.
    Fused(Vec<u8>),
    /// Of one of Burn's optimizers.
    Burn(burn::optim::OptimizerRecord),
}

impl OptimizerRecord {
    /// The record as the bytes of a file.
    ///
    /// # Errors
    /// If Burn cannot serialize its own.
    pub fn into_bytes(self) -> Result<Vec<u8>, OptimizerRecordError> {
        match self {
            Self::Fused(bytes) => Ok(bytes),
            Self::Burn(record) => record
                .into_bytes()
                .map(|bytes| bytes.to_vec())
                .map_err(OptimizerRecordError::unreadable),
        }
    }

    /// A record of one of Burn's optimizers from the bytes of a file.
    ///
    /// # Errors
    /// If the bytes are no such record.
    pub fn from_burn_bytes(bytes: Vec<u8>) -> Result<Self, OptimizerRecordError> {
        burn::optim::OptimizerRecord::from_bytes(Bytes::from_elems(bytes))
            .map(Self::Burn)
            .map_err(OptimizerRecordError::unreadable)
    }
}

/// A record that does not fit the optimizer it is loaded into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerRecordError {
    /// The record is of another optimizer.
    #[error(
        "the record is of another optimizer ({found}) than the configured one ({expected}); configure the one that was saved"
    )]
    OtherOptimizer {
        /// The record's optimizer.
        found: String,
        /// The configured one.
        expected: String,
    },
    /// The record is damaged.
    #[error("the optimizer's record cannot be read: {problem}")]
    Unreadable {
        /// What is wrong.
        problem: String,
    },
}

impl OptimizerRecordError {
    fn unreadable<P: ToString>(problem: P) -> Self {
        Self::Unreadable {
            problem: problem.to_string(),
        }
    }
}

/// The states of all parameters that have taken a step.
pub(super) type States = HashMap<ParamId, ParameterState>;

/// The bytes of a record; the same states give the same bytes.
pub(super) fn serialize(rule: &Rule, states: &States) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    for (id, state) in states {
        let steps = state.steps.to_le_bytes().to_vec();
        tensors.insert(format!("{}.{STEPS}", id.val()), (Dtype::U64, vec![], steps));
        for (name, buffer) in rule.buffers().iter().zip(&state.buffers) {
            let bytes = buffer.iter().flat_map(|x| x.to_le_bytes()).collect();
            let tensor = (Dtype::F32, vec![buffer.len()], bytes);
            tensors.insert(format!("{}.{name}", id.val()), tensor);
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("the bytes of a tensor fit its shape"))
    });
    let metadata = HashMap::from([(RULE.to_string(), rule.name().to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("names and sizes fit a header")
}

/// The states in this crate's own record, for `rule`.
pub(super) fn load(rule: &Rule, record: OptimizerRecord) -> Result<States, OptimizerRecordError> {
    match record {
        OptimizerRecord::Fused(bytes) => deserialize(rule, &bytes),
        OptimizerRecord::Burn(_) => Err(OptimizerRecordError::OtherOptimizer {
            found: "one of Burn's".into(),
            expected: rule.name().into(),
        }),
    }
}

/// Burn's optimizer with the state in Burn's own record.
pub(super) fn load_burn(
    optimizer: ModuleOptimizer,
    record: OptimizerRecord,
) -> Result<ModuleOptimizer, OptimizerRecordError> {
    match record {
        OptimizerRecord::Burn(record) => Ok(optimizer.load_record(record)),
        OptimizerRecord::Fused(_) => Err(OptimizerRecordError::OtherOptimizer {
            found: "mantissa's".into(),
            expected: "one of Burn's".into(),
        }),
    }
}

fn deserialize(rule: &Rule, bytes: &[u8]) -> Result<States, OptimizerRecordError> {
    let unreadable = OptimizerRecordError::unreadable::<String>;
    let read = |error: safetensors::SafeTensorError| unreadable(error.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(read)?;
    let found = metadata.metadata().as_ref().and_then(|map| map.get(RULE));
    let found = found.ok_or_else(|| unreadable("it names no optimizer".into()))?;
    if found != rule.name() {
        return Err(OptimizerRecordError::OtherOptimizer {
            found: found.clone(),
            expected: rule.name().into(),
        });
    }

    let record = SafeTensors::deserialize(bytes).map_err(read)?;
    let mut states = States::new();
    for name in record.names() {
        let Some(id) = name.strip_suffix(STEPS).and_then(|id| id.strip_suffix('.')) else {
            continue;
        };
        let key: u64 = id
            .parse()
            .map_err(|_| unreadable(format!("`{id}` is no parameter's id")))?;
        let steps = record.tensor(name).map_err(read)?.data();
        let steps = steps
            .try_into()
            .map_err(|_| unreadable(format!("`{name}` is not one u64")))?;
        let mut state = ParameterState {
            steps: u64::from_le_bytes(steps),
            buffers: Vec::new(),
        };
        for buffer in rule.buffers() {
            let name = format!("{id}.{buffer}");
            let tensor = record.tensor(&name).map_err(read)?;
            if tensor.dtype() != Dtype::F32 {
                return Err(unreadable(format!("`{name}` is not f32")));
            }
            let (elements, _) = tensor.data().as_chunks::<4>();
            let elements = elements.iter().map(|&bytes| f32::from_le_bytes(bytes));
            state.buffers.push(elements.collect());
        }
        if state
            .buffers
            .windows(2)
            .any(|pair| pair[0].len() != pair[1].len())
        {
            return Err(unreadable(format!(
                "the buffers of `{id}` differ in length"
            )));
        }
        states.insert(ParamId::from(key), state);
    }
    Ok(states)
}
