//! How a stored tensor lies in its buffer, and the way there and back.
//!
//! A buffer holds the elements, padded to four bytes; what belongs to them (scales, or the low halves of f32); and a
//! footer that says how to read the rest. Burn sees a tensor whose buffer is longer than its elements, as that of a
//! slice, and passes it on whole: clones and views share it, and a write to a shared one copies all of it. So a tensor
//! and its scales cannot come apart unnoticed.

use std::borrow::Cow;
use std::ops::Range;

use burn::backend::DType;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Shape;
use bytemuck::{cast_slice, cast_slice_mut, pod_collect_to_vec, try_cast_slice};
use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding};
use mantissa_plan::Storage;
use mantissa_quant::{Numerics, decode_rows, encode_rows, scales_of_rows};
use rayon::prelude::*;

use super::halves;
use crate::buffer::{Buffer, CodeBuffer};
use crate::flex_tensor::{nothing, shape};

/// The last bytes of a stored tensor's buffer.
const MAGIC: [u8; 8] = *b"mantissa";
/// The longest text of a storage, and more.
const TEXT: usize = 80;
/// The text, the length of a row, the number of elements, and [`MAGIC`].
const FOOTER: usize = TEXT + 8 + 8 + 8;
/// Elements that one task converts.
const TASK: usize = 1 << 15;

/// How a tensor is stored: what its footer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Form {
    storage: Storage,
    rows: usize,
    depth: usize,
}

impl Form {
    /// For a tensor of this shape, whose rows are what shares an index of its first axis: an input feature of a linear
    /// layer, an output channel of a convolution, an entry of a table.
    pub(crate) fn new(storage: Storage, shape: &[usize]) -> Self {
        let elements: usize = shape.iter().product();
        let depth = match shape {
            [_] | [] => elements,
            [_, row @ ..] => row.iter().product(),
        };
        Self {
            storage,
            rows: elements.checked_div(depth).unwrap_or(0),
            depth,
        }
    }

    /// What the footer of `tensor` says; `None` if it has none, as those that are stored as computed.
    pub(crate) fn of(tensor: &FlexTensor) -> Option<Self> {
        let bytes = tensor.bytes();
        let footer = bytes.get(bytes.len().checked_sub(FOOTER)?..)?;
        let (text, numbers) = footer.split_at(TEXT);
        if numbers[16..] != MAGIC {
            return None;
        }
        let [depth, elements] = [&numbers[..8], &numbers[8..16]].map(|bytes| {
            let number = bytes.try_into().map(u64::from_le_bytes);
            usize::try_from(number.unwrap_or(0)).unwrap_or(0)
        });
        let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
        let form = Self {
            storage: text.parse().ok()?,
            rows: elements.checked_div(depth).unwrap_or(0),
            depth,
        };
        (form.bytes() == bytes.len() && form.dtype() == tensor.dtype()).then_some(form)
    }

    pub(crate) fn storage(&self) -> Storage {
        self.storage
    }

    pub(crate) fn elements(&self) -> usize {
        self.rows * self.depth
    }

    /// The whole buffer's length.
    pub(crate) fn bytes(&self) -> usize {
        self.rest().end + FOOTER
    }

    /// What Burn takes an element for. A byte is no float; the one type that is one and that no operation of the CPU
    /// backend knows makes all of them refuse it.
    pub(crate) fn dtype(&self) -> DType {
        match self.storage {
            Storage::Fp32 => DType::F32,
            Storage::SplitBf16 => DType::BF16,
            Storage::Rounded(numerics) if numerics.format.bits() <= 8 => DType::Flex32,
            Storage::Rounded(numerics) if numerics.format == Format::FP16 => DType::F16,
            Storage::Rounded(_) => DType::BF16,
        }
    }

    /// The bytes of the elements.
    pub(crate) fn codes(&self) -> Range<usize> {
        let width = match self.storage {
            Storage::SplitBf16 => 2,
            storage => storage.bytes_per_element() as usize,
        };
        0..self.elements() * width
    }

    /// The bytes of what belongs to them.
    pub(crate) fn rest(&self) -> Range<usize> {
        let start = self.codes().end.next_multiple_of(4);
        let len = match self.storage {
            Storage::Rounded(numerics) if numerics.format.bits() <= 8 => {
                4 * scales_of_rows(&numerics, [self.rows, self.depth])
            }
            Storage::SplitBf16 => (2 * self.elements()).next_multiple_of(4),
            Storage::Fp32 | Storage::Rounded(_) => 0,
        };
        start..start + len
    }

    /// A new tensor of `shape` with `values` as they are stored; without random bits the nearest, whatever rounding the
    /// storage names.
    pub(crate) fn store(
        &self,
        values: &[f32],
        shape: &[usize],
        random: Option<RandomBits>,
    ) -> FlexTensor {
        self.tensor(shape, |buffer| self.write(values, random, buffer))
    }

    /// A tensor whose buffer `write` fills.
    fn tensor(&self, shape: &[usize], write: impl FnOnce(&mut [u8])) -> FlexTensor {
        let layout = Layout::contiguous(Shape::from(shape.to_vec()));
        let bytes = if self.storage.bytes_per_element() < 2.0 {
            let mut buffer = CodeBuffer::with_codes(self.elements(), self.bytes());
            write(&mut buffer);
            buffer.into_bytes()
        } else {
            let mut buffer = Buffer::new(self.bytes() / 4);
            write(cast_slice_mut(&mut buffer));
            buffer.into_bytes()
        };
        FlexTensor::new(bytes, layout, self.dtype())
    }

    /// The tensor of `shape` with these codes and what belongs to them, as [`codes`](Self::codes) and
    /// [`rest`](Self::rest) have them but for padding; `None` if they are not of its lengths.
    pub(crate) fn restore(&self, codes: &[u8], rest: &[u8], shape: &[usize]) -> Option<FlexTensor> {
        let unpadded = match self.storage {
            Storage::SplitBf16 => self.codes().len(),
            _ => self.rest().len(),
        };
        if codes.len() != self.codes().len() || rest.len() != unpadded {
            return None;
        }
        Some(self.tensor(shape, |buffer| {
            buffer[self.codes()].copy_from_slice(codes);
            buffer[self.rest()][..rest.len()].copy_from_slice(rest);
            self.write_footer(buffer);
        }))
    }

    /// Replaces the elements of a tensor of this form, where they lie unless somebody else holds them.
    pub(crate) fn overwrite(&self, tensor: &mut FlexTensor, values: &[f32], random: RandomBits) {
        let (dtype, layout) = (tensor.dtype(), tensor.layout().clone());
        let buffer = tensor.data_arc();
        // The buffer's only owner, if `tensor` was.
        *tensor = nothing();
        let mut bytes = FlexTensor::from_arc(buffer, layout.clone(), DType::U8);
        self.write(values, Some(random), bytes.storage_mut::<u8>());
        *tensor = FlexTensor::from_arc(bytes.data_arc(), layout, dtype);
    }

    fn write(&self, values: &[f32], random: Option<RandomBits>, buffer: &mut [u8]) {
        self.write_footer(buffer);
        let (codes, rest) = buffer[..self.rest().end].split_at_mut(self.rest().start);
        let codes = &mut codes[self.codes()];
        let drawn = |numerics: Numerics| match random {
            Some(random) => (numerics, random),
            None => {
                let rounding = Rounding::Nearest;
                (
                    Numerics {
                        rounding,
                        ..numerics
                    },
                    RandomBits::NONE,
                )
            }
        };
        match self.storage {
            Storage::Fp32 => cast_slice_mut(codes).copy_from_slice(values),
            Storage::SplitBf16 => {
                let low = &mut cast_slice_mut::<u8, u16>(rest)[..values.len()];
                halves::split(values, cast_slice_mut(codes), low);
            }
            Storage::Rounded(numerics) if numerics.format.bits() <= 8 => {
                let (numerics, random) = drawn(numerics);
                let mut scales = vec![0.0; rest.len() / 4];
                let shape = [self.rows, self.depth];
                encode_rows(values, shape, &numerics, random, codes, &mut scales);
                rest.copy_from_slice(cast_slice(&scales));
            }
            Storage::Rounded(numerics) => {
                let (numerics, random) = drawn(numerics);
                let rounder = Rounder::new(numerics.format, numerics.rounding, numerics.overflow);
                let codes: &mut [u16] = cast_slice_mut(codes);
                let tasks = codes.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
                tasks.enumerate().for_each(|(task, (codes, values))| {
                    rounder.encode_u16(random, (task * TASK) as u64, values, codes);
                });
            }
        }
    }

    fn write_footer(&self, buffer: &mut [u8]) {
        let footer = &mut buffer[self.rest().end..];
        footer.fill(0);
        let text = self.storage.to_string();
        footer[..text.len()].copy_from_slice(text.as_bytes());
        let numbers = [self.depth, self.elements()].map(|number| (number as u64).to_le_bytes());
        footer[TEXT..TEXT + 16].copy_from_slice(numbers.as_flattened());
        footer[TEXT + 16..].copy_from_slice(&MAGIC);
    }

    /// What products read of `tensor`, in the order of its buffer.
    pub(crate) fn read(&self, tensor: &FlexTensor, values: &mut [f32]) {
        let bytes = tensor.bytes();
        let codes = &bytes[self.codes()];
        match self.storage {
            Storage::Fp32 => values.copy_from_slice(&aligned(codes)),
            Storage::SplitBf16 => decode_u16(Format::BF16, &aligned(codes), values),
            Storage::Rounded(numerics) if numerics.format.bits() <= 8 => {
                let (shape, scales) = ([self.rows, self.depth], aligned(&bytes[self.rest()]));
                decode_rows(codes, shape, &numerics, &scales, values);
            }
            Storage::Rounded(numerics) => decode_u16(numerics.format, &aligned(codes), values),
        }
    }

    /// What updates read of `tensor`: the exact f32 where it is kept.
    pub(crate) fn read_master(&self, tensor: &FlexTensor, values: &mut [f32]) {
        match self.storage {
            Storage::SplitBf16 => {
                let bytes = tensor.bytes();
                let (high, low) = (aligned(&bytes[self.codes()]), aligned(&bytes[self.rest()]));
                halves::join(&high, &low[..values.len()], values);
            }
            _ => self.read(tensor, values),
        }
    }
}

/// Elements in a buffer, copied if they lie at odd addresses.
fn aligned<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(bytes: &[u8]) -> Cow<'_, [T]> {
    match try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => Cow::Owned(pod_collect_to_vec(bytes)),
    }
}

fn decode_u16(format: Format, codes: &[u16], values: &mut [f32]) {
    let rounder = Rounder::new(format, Rounding::Nearest, Overflow::Special);
    let tasks = codes.par_chunks(TASK).zip(values.par_chunks_mut(TASK));
    tasks.for_each(|(codes, values)| rounder.decode_u16(codes, values));
}

/// `tensor` in f32, as products read it; itself where it is f32 already. The buffer of what was narrow comes back when the
/// result is dropped.
///
/// # Panics
/// If its elements are bytes without scales: an operation of Burn's copied a stored tensor.
pub(crate) fn widened(tensor: FlexTensor) -> FlexTensor {
    wide(tensor, Form::read)
}

/// `tensor` in f32, as updates read it.
///
/// # Panics
/// As [`widened`].
pub(crate) fn master(tensor: FlexTensor) -> FlexTensor {
    wide(tensor, Form::read_master)
}

fn wide(tensor: FlexTensor, read: fn(&Form, &FlexTensor, &mut [f32])) -> FlexTensor {
    let dtype = tensor.dtype();
    if dtype == DType::F32 {
        return tensor;
    }
    if let Some(form) = Form::of(&tensor) {
        let mut values = Buffer::new(form.elements());
        read(&form, &tensor, &mut values);
        // A view of the stored tensor is the same view of its values.
        let values = values.into_tensor(&[form.elements()]);
        return values.with_layout(tensor.layout().clone());
    }
    let format = match dtype {
        DType::F16 => Format::FP16,
        DType::BF16 => Format::BF16,
        _ => panic!(
            "a parameter of shape {:?} was stored in 8 bits, and an operation of Burn's copied it ({dtype:?}) without its \
             scales; compute with stored parameters through mantissa::nn, and load them from a mantissa checkpoint",
            shape(&tensor)
        ),
    };
    let codes: Cow<[u16]> = aligned(tensor.bytes());
    let mut values = Buffer::new(codes.len());
    decode_u16(format, &codes, &mut values);
    let values = values.into_tensor(&[codes.len()]);
    values.with_layout(tensor.layout().clone())
}
