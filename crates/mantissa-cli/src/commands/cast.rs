//! `mantissa cast`: a safetensors file's tensors as codes and scales.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use mantissa_formats::{Format, Overflow, RandomBits};
use mantissa_quant::{Granularity, Numerics, StoredTensor, quantize_rows};
use safetensors::Dtype;

use crate::atomic_file::AtomicFile;
use crate::error::Error;
use crate::safetensors_file::{self, NewTensor, Tensor, TensorFile};
use crate::terminal::complain;

/// Arguments of `mantissa cast`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each tensor of floats is written as codes under its own name: with dtype F8_E4M3, F8_E5M2, F16, BF16,\n\
                  F32 or I8 where the format is one of these, else U8 with one code a byte. Where the numerics is\n\
                  scaled, its scales are under NAME.scale as F32, and a value is its code's value times its scale.\n\
                  Scales run along the last axis, which is 1 long there for channel and ceil(K/n) for block<n>;\n\
                  the one scale of tensor has shape []. Other tensors are copied as they are.\n\n\
                  Examples:\n  mantissa cast model.safetensors --to e4m3 -o model-e4m3.safetensors\n  \
                  mantissa cast model.safetensors --to int8/channel -o model-int8.safetensors\n\n\
                  In PyTorch:\n  t = safetensors.torch.load_file('model-e4m3.safetensors')\n  \
                  w = t['w'].float() * t['w.scale']"
)]
pub struct Args {
    /// The file to read
    file: PathBuf,
    /// Numerics to write, such as e4m3/tensor, int8/channel, mxfp8 or bf16
    #[arg(long, value_name = "NUMERICS")]
    to: String,
    /// The file to write
    #[arg(short, long)]
    output: PathBuf,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
    /// Seed of stochastic rounding
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The key in the output's header that says how its tensors were cast.
const NOTE: &str = "mantissa.numerics";

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let numerics: Numerics = args.to.parse()?;
    let code = code_of(&numerics)?;
    let input = TensorFile::read(&args.file)?;
    // Through links and dots too, the output must not be the input.
    if let (Ok(a), Ok(b)) = (fs::canonicalize(&args.file), fs::canonicalize(&args.output))
        && a == b
    {
        return Err(Error::OutputIsInput { path: args.output });
    }
    let output = AtomicFile::create(&args.output, args.force)?;

    let tensors = input.tensors();
    let progress = ProgressBar::new(tensors.iter().map(|t| t.bytes.len() as u64).sum());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        progress.set_style(style);
    }
    let mut written = BTreeMap::new();
    for (stream, tensor) in tensors.iter().enumerate() {
        let random = RandomBits::new(args.seed, stream as u64);
        for (name, new) in cast(&input, tensor, &numerics, code, random)? {
            if written.insert(name.clone(), new).is_some() {
                return Err(input.tensor_error(
                    &name,
                    "is both in the file and the name of another tensor's scales; rename it",
                ));
            }
        }
        progress.inc(tensor.bytes.len() as u64);
    }
    progress.finish_and_clear();
    if !tensors.iter().any(Tensor::is_float) {
        complain(
            "note",
            &"no tensor is of floats: all were copied as they are",
        );
    }
    let mut notes = input.notes();
    notes.insert(NOTE.to_owned(), numerics.to_string());
    safetensors_file::write(output, &written, &notes)
}

/// How codes are written.
#[derive(Clone, Copy)]
struct Code {
    dtype: Dtype,
    bytes: usize,
}

/// The element type of a numerics' codes: the one that is its format, else bytes.
fn code_of(numerics: &Numerics) -> Result<Code, Error> {
    if matches!(numerics.granularity, Granularity::Tile(..)) {
        return Err(Error::Usage(format!(
            "`{numerics}` has two-dimensional scales, which cast does not write; use block<n> or channel"
        )));
    }
    let (dtype, bytes) = match numerics.format {
        Format::FP32 => (Dtype::F32, 4),
        Format::FP16 => (Dtype::F16, 2),
        Format::BF16 => (Dtype::BF16, 2),
        Format::E4M3 => (Dtype::F8_E4M3, 1),
        Format::E5M2 => (Dtype::F8_E5M2, 1),
        Format::INT8 => (Dtype::I8, 1),
        format if format.bits() <= 8 => (Dtype::U8, 1),
        format => {
            return Err(Error::Usage(format!(
                "safetensors has no element type for the {} bits of `{format}`; use fp16, bf16, fp32 or a format of at most 8 bits",
                format.bits()
            )));
        }
    };
    Ok(Code { dtype, bytes })
}

/// One tensor of the input as one or two of the output.
fn cast<'a>(
    input: &TensorFile,
    tensor: &Tensor<'a>,
    numerics: &Numerics,
    code: Code,
    random: RandomBits,
) -> Result<Vec<(String, NewTensor<'a>)>, Error> {
    let Some(values) = tensor.to_f32() else {
        let copy = NewTensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: Cow::Borrowed(tensor.bytes),
        };
        return Ok(vec![(tensor.name.clone(), copy)]);
    };
    if let Some(x) = values.iter().find(|x| !storable(**x, numerics)) {
        return Err(input.tensor_error(
            &tensor.name,
            format!("holds {x}, which `{numerics}` cannot store; mend it, or cast to bf16"),
        ));
    }
    let (_, depth) = tensor.rows_and_depth();
    let stored = quantize_rows(&values, depth, numerics, random);
    debug_assert_eq!(stored.bytes_per_code, code.bytes);
    let mut new = Vec::new();
    if numerics.granularity.is_scaled() {
        new.push((
            format!("{}.scale", tensor.name),
            scales(tensor.shape, numerics, &stored),
        ));
    }
    let codes = NewTensor {
        dtype: code.dtype,
        shape: tensor.shape.to_vec(),
        bytes: Cow::Owned(stored.codes),
    };
    new.push((tensor.name.clone(), codes));
    Ok(new)
}

/// Whether an element keeps its meaning: a NaN or an infinity does only where the format has a code for it and no scale
/// is taken from it.
fn storable(x: f32, numerics: &Numerics) -> bool {
    let plain = !numerics.granularity.is_scaled();
    x.is_finite()
        || plain && x.is_nan() && numerics.format.has_nan()
        || plain
            && x.is_infinite()
            && numerics.format.has_infinity()
            && numerics.overflow == Overflow::Special
}

/// The scales with the axes of their tensor, the last one as long as it has groups.
fn scales(shape: &[usize], numerics: &Numerics, stored: &StoredTensor) -> NewTensor<'static> {
    let mut shape = shape.to_vec();
    match (numerics.granularity, shape.last_mut()) {
        (Granularity::Tensor, _) => shape.clear(),
        (Granularity::Block(n), Some(last)) => *last = last.div_ceil(n as usize),
        (_, Some(last)) => *last = (*last).min(1),
        (_, None) => {}
    }
    // F32 for every scale kind: PyTorch reads F8_E8M0 only since 2.7, and refuses the whole file before that.
    let bytes = stored.scales.iter().flat_map(|scale| scale.to_le_bytes());
    NewTensor {
        dtype: Dtype::F32,
        shape,
        bytes: bytes.collect(),
    }
}
