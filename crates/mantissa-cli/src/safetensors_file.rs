//! Safetensors files: read totally, whatever is in them, and written whole or not at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mantissa_formats::{Format, Overflow, Rounder, Rounding};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::atomic_file::AtomicFile;
use crate::error::Error;
use crate::terminal::printable;

/// A file in memory whose header has been checked: every tensor's bytes are there, and no two overlap.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Metadata,
    data_start: usize,
}

/// One tensor of a file.
pub struct Tensor<'a> {
    /// Its name, unique in the file.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its axes, outermost first; empty for a single number.
    pub shape: &'a [usize],
    /// Its elements, little-endian and row-major.
    pub bytes: &'a [u8],
}

impl TensorFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        // A device or a pipe may never end.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::Safetensors {
                path: path.to_owned(),
                problem: "it is not a regular file".to_owned(),
            });
        }
        let bytes = fs::read(path).map_err(failed)?;
        match SafeTensors::read_metadata(&bytes) {
            Ok((header_len, header)) => Ok(Self {
                path: path.to_owned(),
                data_start: header_len + LENGTH_BYTES,
                header,
                bytes,
            }),
            Err(error) => Err(Error::Safetensors {
                path: path.to_owned(),
                problem: problem(&bytes, &error),
            }),
        }
    }

    /// The tensors in the order of their bytes.
    pub fn tensors(&self) -> Vec<Tensor<'_>> {
        let data = &self.bytes[self.data_start..];
        let names = self.header.offset_keys().into_iter();
        names
            .filter_map(|name| {
                let info = self.header.info(&name)?;
                Some(Tensor {
                    dtype: info.dtype,
                    shape: &info.shape,
                    bytes: data.get(info.data_offsets.0..info.data_offsets.1)?,
                    name,
                })
            })
            .collect()
    }

    /// The free texts of the header.
    pub fn notes(&self) -> BTreeMap<String, String> {
        let notes = self.header.metadata().iter().flatten();
        notes.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// An error about one of the tensors.
    pub fn tensor_error(&self, tensor: &str, problem: impl Into<String>) -> Error {
        Error::Tensor {
            path: self.path.clone(),
            tensor: printable(tensor),
            problem: problem.into(),
        }
    }
}

impl Tensor<'_> {
    /// The number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor as a matrix: rows, and elements along the last axis. A single number is one row of one.
    pub fn rows_and_depth(&self) -> (usize, usize) {
        match self.shape.split_last() {
            None => (1, 1),
            Some((&depth, outer)) => (outer.iter().product(), depth),
        }
    }

    /// Whether the elements are floating-point numbers that [`to_f32`](Self::to_f32) understands.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, Dtype::F64 | Dtype::F32) || narrow_format(self.dtype).is_some()
    }

    /// The elements as f32, rounded to nearest where they are wider; `None` for other types than floats.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let bytes = self.bytes;
        match self.dtype {
            Dtype::F32 => {
                let words = bytes.as_chunks().0.iter();
                Some(words.map(|word| f32::from_le_bytes(*word)).collect())
            }
            Dtype::F64 => {
                let words = bytes.as_chunks().0.iter();
                Some(words.map(|word| f64::from_le_bytes(*word) as f32).collect())
            }
            dtype => {
                let format = narrow_format(dtype)?;
                let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Special);
                let mut values = vec![0.0; self.count()];
                if format.bits() == 16 {
                    let words = bytes.as_chunks().0.iter();
                    let codes: Vec<u16> = words.map(|word| u16::from_le_bytes(*word)).collect();
                    rounder.decode_u16(&codes, &mut values);
                } else {
                    rounder.decode_u8(bytes, &mut values);
                }
                Some(values)
            }
        }
    }
}

/// The element types of 8 and 16 bits that are floats, each with its format.
const NARROW: [(Dtype, Format); 6] = [
    (Dtype::F16, Format::FP16),
    (Dtype::BF16, Format::BF16),
    (Dtype::F8_E4M3, Format::E4M3),
    (Dtype::F8_E5M2, Format::E5M2),
    (Dtype::F8_E4M3FNUZ, Format::E4M3FNUZ),
    (Dtype::F8_E5M2FNUZ, Format::E5M2FNUZ),
];

fn narrow_format(dtype: Dtype) -> Option<Format> {
    let found = NARROW.iter().find(|(known, _)| *known == dtype);
    found.map(|(_, format)| *format)
}

/// The length of the header, before it.
const LENGTH_BYTES: usize = 8;

/// What is wrong with a file, naming the tensor where one is to blame. The reader stops at the first thing that does not
/// fit and seldom says where, so the header is looked through once more, this time expecting nothing of it.
fn problem(bytes: &[u8], error: &SafeTensorError) -> String {
    let announced = bytes
        .first_chunk::<LENGTH_BYTES>()
        .map(|length| u64::from_le_bytes(*length));
    let Some(announced) = announced else {
        return format!("it is only {} bytes long", bytes.len());
    };
    let rest = &bytes[LENGTH_BYTES..];
    let header = usize::try_from(announced).ok().and_then(|n| rest.get(..n));
    let Some(header) = header else {
        let there = rest.len();
        return format!("it announces a header of {announced} bytes and ends after {there}");
    };
    let entries = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(header);
    let Ok(entries) = entries else {
        return match error {
            SafeTensorError::HeaderTooLarge => "its header is longer than 100 MB".to_owned(),
            _ => "its header is not a JSON object".to_owned(),
        };
    };
    let data_len = rest.len() - header.len();
    let tensors = entries.iter().filter(|(name, _)| *name != "__metadata__");
    for (name, entry) in tensors {
        if let Some(problem) = entry_problem(entry, data_len) {
            return format!("tensor `{}` {problem}", printable(name));
        }
    }
    match error {
        SafeTensorError::InvalidOffset(name) => format!(
            "tensor `{}` overlaps another one or leaves a gap before it",
            printable(name)
        ),
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its tensors do not fill the {data_len} bytes after its header")
        }
        other => other.to_string(),
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn entry_problem(entry: &serde_json::Value, data_len: usize) -> Option<String> {
    let Ok(entry) = Entry::deserialize(entry) else {
        return Some("lacks a proper dtype, shape or data_offsets".to_owned());
    };
    let Ok(dtype) = Dtype::deserialize(serde_json::Value::from(entry.dtype.clone())) else {
        let dtype = printable(&entry.dtype);
        return Some(format!("has the unknown dtype `{dtype}`"));
    };
    let (start, end) = entry.data_offsets;
    if start > end || end > data_len as u64 {
        return Some(format!(
            "lies at bytes {start} to {end} of {data_len}, outside the file"
        ));
    }
    let bits = entry
        .shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &axis| bits.checked_mul(axis));
    if bits != (end - start).checked_mul(8) {
        let held = end - start;
        let shape = entry.shape;
        return Some(format!(
            "of shape {shape:?} and dtype {dtype} does not take the {held} bytes it has"
        ));
    }
    None
}

/// A tensor to be written.
pub struct NewTensor<'a> {
    /// Its element type.
    pub dtype: Dtype,
    /// Its axes, outermost first.
    pub shape: Vec<usize>,
    /// Its elements, little-endian and row-major.
    pub bytes: Cow<'a, [u8]>,
}

/// Writes tensors and the free texts of the header. Equal content gives equal bytes.
pub fn write(
    mut file: AtomicFile,
    tensors: &BTreeMap<String, NewTensor>,
    notes: &BTreeMap<String, String>,
) -> Result<(), Error> {
    // Widest element first, then by name: every tensor is aligned to its element without gaps.
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(name, tensor)| (std::cmp::Reverse(tensor.dtype), *name));
    let mut infos = BTreeMap::new();
    let mut end = 0;
    for (name, tensor) in &order {
        let start = end;
        end += tensor.bytes.len();
        infos.insert(
            name.as_str(),
            TensorInfo {
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                data_offsets: (start, end),
            },
        );
    }
    let header = Header {
        notes,
        tensors: infos,
    };
    let mut header = serde_json::to_vec(&header).expect("names, numbers and texts serialize");
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for (_, tensor) in order {
        file.write(&tensor.bytes)?;
    }
    file.commit()
}

#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__", skip_serializing_if = "BTreeMap::is_empty")]
    notes: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
}
