//! What an optimizer remembers of each parameter, in memory and in checkpoints.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use mantissa_formats::Format;
use mantissa_kernels::state::{Moment, StateBuffer, StateFormat, StateFormatError, StateFormats};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::groups::Members;
use super::rule::{Buffer, Rule};

/// The key of the rule's name in a record's metadata.
const RULE: &str = "rule";
/// The name of a parameter's step count, beside its buffers.
const STEPS: &str = "steps";
/// The names of what a buffer that is not f32 has beside its codes.
const FORMAT: &str = "format";
const ELEMENTS: &str = "elements";
const SCALES: &str = "scales";
const EXPONENTS: &str = "exponents";

/// What a [`Rule`] remembers of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ParameterState {
    /// Steps taken.
    pub(super) steps: u64,
    /// In the order of [`Rule::buffers`].
    pub(super) buffers: Vec<StateBuffer>,
}

impl ParameterState {
    /// Before the first step of a parameter of this shape.
    pub(super) fn new(rule: &Rule, shape: &[usize], formats: StateFormats) -> Self {
        let zeros = |buffer: &Buffer| {
            StateBuffer::zeros(buffer.format(formats), buffer.moment(), buffer.len(shape))
        };
        Self {
            steps: 0,
            buffers: rule.buffers(shape).iter().map(zeros).collect(),
        }
    }

    /// Whether it is the state of a parameter of this shape.
    pub(super) fn fits(&self, rule: &Rule, shape: &[usize]) -> bool {
        let expected = rule.buffers(shape).iter().map(|buffer| buffer.len(shape));
        self.buffers.iter().map(StateBuffer::len).eq(expected)
    }
}

/// An optimizer's state, keyed by parameter id: what [`MasterOptimizer::to_record`](super::MasterOptimizer::to_record)
/// gives.
pub enum OptimizerRecord {
    /// Of this crate's rules, as a safetensors file: for each parameter the tensors `<id>.steps` and `<id>.<buffer>`,
    /// and the rule's name as metadata. Buffers that are not f32 have `<id>.<buffer>.format` (its text), `.elements`,
    /// `.scales` and `.exponents` beside their codes.
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
    /// A moment has another format.
    #[error(
        "the record has the {buffer} of {parameter} as {found}, and {expected} is configured; configure what was saved, or \
         convert the record, which rounds the moments once"
    )]
    OtherFormat {
        /// The parameter's path, or its id where it is of no model that is known.
        parameter: String,
        /// Which moment.
        buffer: &'static str,
        /// The record's format.
        found: StateFormat,
        /// The configured one.
        expected: StateFormat,
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

/// What to do with a moment whose format is not the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Refuse,
    /// Decode it, and code it as configured.
    Convert,
}

/// The bytes of a record; the same states give the same bytes.
pub(super) fn serialize(rule: &Rule, states: &States) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    for (id, state) in states {
        let id = id.val();
        let steps = state.steps.to_le_bytes().to_vec();
        tensors.insert(format!("{id}.{STEPS}"), (Dtype::U64, vec![], steps));
        let names = rule
            .layouts()
            .iter()
            .find(|layout| layout.len() == state.buffers.len());
        for (buffer, state) in names.into_iter().copied().flatten().zip(&state.buffers) {
            let name = format!("{id}.{}", buffer.name);
            let codes = state.codes();
            let (dtype, len) = code_type(state, codes.len());
            if state.format() != StateFormat::FP32 {
                let elements = (state.len() as u64).to_le_bytes().to_vec();
                let format = state.format().to_string().into_bytes();
                let scales: Vec<u8> = state
                    .scales()
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect();
                let exponents = state.exponents().to_vec();
                for (part, dtype, len, bytes) in [
                    (ELEMENTS, Dtype::U64, None, elements),
                    (FORMAT, Dtype::U8, Some(format.len()), format),
                    (SCALES, Dtype::F32, Some(state.scales().len()), scales),
                    (EXPONENTS, Dtype::U8, Some(exponents.len()), exponents),
                ] {
                    let shape = len.into_iter().collect();
                    tensors.insert(format!("{name}.{part}"), (dtype, shape, bytes));
                }
            }
            tensors.insert(name, (dtype, vec![len], codes));
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("the bytes of a tensor fit its shape"))
    });
    let metadata = HashMap::from([(RULE.to_string(), rule.name().to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("names and sizes fit a header")
}

/// The type of a buffer's codes in a file, and how many there are.
fn code_type(buffer: &StateBuffer, bytes: usize) -> (Dtype, usize) {
    match buffer.number_format() {
        Some(Format::FP32) => (Dtype::F32, buffer.len()),
        Some(Format::BF16) => (Dtype::BF16, buffer.len()),
        Some(Format::FP16) => (Dtype::F16, buffer.len()),
        Some(Format::E4M3) => (Dtype::F8_E4M3, buffer.len()),
        Some(Format::E5M2) => (Dtype::F8_E5M2, buffer.len()),
        _ => (Dtype::U8, bytes),
    }
}

/// The states in this crate's own record, for `rule`.
pub(super) fn load(
    rule: &Rule,
    members: &Members,
    record: OptimizerRecord,
    mismatch: Mismatch,
) -> Result<States, OptimizerRecordError> {
    match record {
        OptimizerRecord::Fused(bytes) => deserialize(rule, members, &bytes, mismatch),
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

fn deserialize(
    rule: &Rule,
    members: &Members,
    bytes: &[u8],
    mismatch: Mismatch,
) -> Result<States, OptimizerRecordError> {
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
        let has = |buffer: &Buffer| record.tensor(&format!("{id}.{}", buffer.name)).is_ok();
        let layout = rule.layouts().iter().find(|layout| layout.iter().all(has));
        let layout = layout.ok_or_else(|| unreadable(format!("moments of `{id}` are missing")))?;
        let member = members.get(ParamId::from(key));
        for buffer in *layout {
            let mut found =
                read_buffer(&record, &format!("{id}.{}", buffer.name), buffer.moment())?;
            let expected = buffer.format(member.states);
            if found.format() != expected {
                if mismatch == Mismatch::Refuse {
                    return Err(OptimizerRecordError::OtherFormat {
                        parameter: match member.path.as_str() {
                            "" => id.to_owned(),
                            path => path.to_owned(),
                        },
                        buffer: buffer.name,
                        found: found.format(),
                        expected,
                    });
                }
                found = StateBuffer::from_f32(expected, buffer.moment(), &found.to_f32());
            }
            state.buffers.push(found);
        }
        let whole = |buffers: &[StateBuffer]| buffers[0].len() == buffers[1].len();
        if layout.iter().all(Buffer::is_whole) && !state.buffers.windows(2).all(whole) {
            return Err(unreadable(format!(
                "the buffers of `{id}` differ in length"
            )));
        }
        states.insert(ParamId::from(key), state);
    }
    Ok(states)
}

fn read_buffer(
    record: &SafeTensors,
    name: &str,
    moment: Moment,
) -> Result<StateBuffer, OptimizerRecordError> {
    let unreadable =
        |problem: String| OptimizerRecordError::unreadable(format!("`{name}`: {problem}"));
    let tensor = |part: &str| {
        let tensor = record.tensor(&format!("{name}{part}"));
        tensor.map_err(|error| unreadable(error.to_string()))
    };
    let part = |part: &str| tensor(&format!(".{part}"));
    let codes = tensor("")?;
    let made = if let Ok(text) = part(FORMAT) {
        let text = String::from_utf8_lossy(text.data());
        let format: StateFormat = text
            .parse()
            .map_err(|error: StateFormatError| unreadable(error.to_string()))?;
        let elements = part(ELEMENTS)?.data().try_into();
        let elements = elements.map_err(|_| unreadable(format!("`{ELEMENTS}` is not one u64")))?;
        let scales = part(SCALES)?;
        let (scales, _) = scales.data().as_chunks::<4>();
        let scales = scales
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        let exponents = part(EXPONENTS)?.data().to_vec();
        let elements = usize::try_from(u64::from_le_bytes(elements)).unwrap_or(usize::MAX);
        StateBuffer::from_parts(format, moment, elements, codes.data(), scales, exponents)
    } else if codes.dtype() == Dtype::F32 {
        let len = codes.data().len() / 4;
        StateBuffer::from_parts(StateFormat::FP32, moment, len, codes.data(), vec![], vec![])
    } else {
        return Err(unreadable("it is not f32, and has no format".into()));
    };
    made.map_err(|error| unreadable(error.to_string()))
}
