//! Stored parameters in a safetensors file, exactly as they lie in memory.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Int, Tensor};
use mantissa_formats::Format;
use mantissa_plan::Storage;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::form::Form;
use super::visit;
use crate::flex_tensor::{from_flex, shape};

/// What follows a parameter's path in the name of its scales, or of the low halves of its f32.
const REST: [&str; 2] = [".scales", ".remainder"];
/// What follows it in the metadata: how it is stored, and its id.
const STORAGE: &str = ".storage";
const ID: &str = ".id";

/// The stored parameters of `model`: for each its codes under its path, with the type of its format where safetensors has
/// it, its `<path>.scales` or `<path>.remainder`, and how it is stored as metadata. `None` if all parameters are f32.
pub(crate) fn to_bytes<M: Module>(model: &M) -> Option<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    let mut metadata = HashMap::new();
    visit(model, |path, id, tensor, form| {
        let bytes = tensor.bytes();
        let codes = (
            dtype(form.storage()),
            shape(&tensor),
            bytes[form.codes()].to_vec(),
        );
        tensors.insert(path.to_string(), codes);
        let rest = bytes[form.rest()].to_vec();
        if form.storage() == Storage::SplitBf16 {
            let rest = rest[..form.codes().len()].to_vec();
            let remainder = (Dtype::U16, vec![form.elements()], rest);
            tensors.insert(format!("{path}{}", REST[1]), remainder);
        } else if !rest.is_empty() {
            let scales = (Dtype::F32, vec![rest.len() / 4], rest);
            tensors.insert(format!("{path}{}", REST[0]), scales);
        }
        metadata.insert(format!("{path}{STORAGE}"), form.storage().to_string());
        metadata.insert(format!("{path}{ID}"), id.val().to_string());
    });
    if tensors.is_empty() {
        return None;
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("the bytes of a tensor fit its shape"))
    });
    Some(safetensors::serialize(views, Some(metadata)).expect("names and sizes fit a header"))
}

fn dtype(storage: Storage) -> Dtype {
    let Storage::Rounded(numerics) = storage else {
        return match storage {
            Storage::SplitBf16 => Dtype::BF16,
            _ => Dtype::F32,
        };
    };
    let known = [
        (Format::FP16, Dtype::F16),
        (Format::BF16, Dtype::BF16),
        (Format::E4M3, Dtype::F8_E4M3),
        (Format::E5M2, Dtype::F8_E5M2),
        (Format::INT8, Dtype::I8),
    ];
    let found = known.iter().find(|(format, _)| *format == numerics.format);
    found.map_or(Dtype::U8, |(_, dtype)| *dtype)
}

/// `model` with the stored parameters of `bytes` in their places, and how many places these are.
///
/// # Errors
/// If the bytes are not what [`to_bytes`] writes, or not of this model.
pub(crate) fn load<M: Module>(model: M, bytes: &[u8]) -> Result<(M, usize), String> {
    let read = |error: safetensors::SafeTensorError| error.to_string();
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(read)?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    let mut loader = Loader {
        path: Vec::new(),
        tensors: SafeTensors::deserialize(bytes).map_err(read)?,
        metadata,
        loaded: 0,
        problem: None,
    };
    let model = model.map(&mut loader);
    if let Some(problem) = loader.problem {
        return Err(problem);
    }
    let stored = loader.metadata.keys().filter(|key| key.ends_with(STORAGE));
    match stored.count() == loader.loaded {
        true => Ok((model, loader.loaded)),
        false => Err("it holds parameters that the model does not have".to_string()),
    }
}

struct Loader<'a> {
    path: Vec<String>,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
    loaded: usize,
    problem: Option<String>,
}

impl Loader<'_> {
    /// The stored parameter at a path, which must have this shape.
    fn tensor(
        &self,
        path: &str,
        storage: &str,
        wanted: &[usize],
    ) -> Result<(ParamId, burn::backend::flex::FlexTensor), String> {
        let storage: Storage = storage
            .parse()
            .map_err(|error| format!("{path}: {error}"))?;
        let id = self.metadata.get(&format!("{path}{ID}"));
        let id = id.and_then(|id| id.parse::<u64>().ok());
        let id = id.ok_or_else(|| format!("{path} has no id"))?;
        let read = |name: &str| self.tensors.tensor(name).map_err(|error| error.to_string());
        let codes = read(path)?;
        if codes.shape() != wanted {
            return Err(format!(
                "{path} is {:?}, not {wanted:?} as in the model",
                codes.shape()
            ));
        }
        let rest = REST
            .iter()
            .find_map(|rest| read(&format!("{path}{rest}")).ok());
        let rest = rest.map_or(&[][..], |rest| rest.data());
        let form = Form::new(storage, wanted);
        let tensor = form.restore(codes.data(), rest, wanted);
        let tensor =
            tensor.ok_or_else(|| format!("{path} has not the bytes of {wanted:?} as {storage}"))?;
        Ok((ParamId::from(id), tensor))
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let Some(storage) = self.metadata.get(&format!("{path}{STORAGE}")) else {
            return param;
        };
        match self.tensor(&path, storage, param.lazy_shape().as_slice()) {
            Ok((id, stored)) => {
                self.loaded += 1;
                let (device, require_grad) = (param.lazy_device(), param.is_require_grad());
                let stored = from_flex(stored, &device).set_require_grad(require_grad);
                let (_, _, mapper) = param.consume();
                Param::from_mapped_value(id, stored, mapper)
            }
            Err(problem) => {
                self.problem.get_or_insert(problem);
                param
            }
        }
    }
}

/// How many parameters `model` has, of all kinds, those it has twice twice.
pub(crate) fn parameters<M: Module>(model: &M) -> usize {
    let mut counter = Counter(0);
    model.visit(&mut counter);
    counter.0
}

struct Counter(usize);

impl ModuleVisitor for Counter {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        self.0 += 1;
    }

    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
        self.0 += 1;
    }

    fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, Bool>>) {
        self.0 += 1;
    }
}
