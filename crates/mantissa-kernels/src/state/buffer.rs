//! The codes and scales of one tensor's moment.

use mantissa_formats::{Format, RandomBits};

use super::Moment;
use super::coder::{Blocks, CodeSlice, Coder, is_exponent, number_format};
use super::format::{PIECE, StateFormat};

/// A moment of one tensor, as codes and scales.
///
/// ```
/// use mantissa_kernels::state::{Moment, StateBuffer, StateFormat};
///
/// let format: StateFormat = "dynamic4".parse()?;
/// let buffer = StateBuffer::from_f32(format, Moment::First, &[0.5, -0.1, 0.0]);
/// // The map of the first moment has 0.2125, and 0.5 is the amax of the block.
/// assert_eq!(buffer.to_f32(), [0.5, -0.10625, 0.0]);
/// assert_eq!(buffer.codes().len(), 2);
/// # Ok::<(), mantissa_kernels::state::StateFormatError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StateBuffer {
    format: StateFormat,
    moment: Moment,
    len: usize,
    codes: Storage,
    scales: Vec<f32>,
    exponents: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
enum Storage {
    Full(Vec<f32>),
    Halves(Vec<u16>),
    Bytes(Vec<u8>),
    Nibbles(Vec<u8>),
}

/// Codes and scales that are no moment of the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} do not make {len} elements of {format}")]
pub struct DamagedState {
    /// What is wrong.
    pub problem: String,
    /// The format.
    pub format: StateFormat,
    /// How many elements were expected.
    pub len: usize,
}

impl StateBuffer {
    /// A moment of `len` zeros.
    pub fn zeros(format: StateFormat, moment: Moment, len: usize) -> Self {
        let zero = Coder::new(format, moment).zero();
        let bytes = format.code_bytes(len);
        let codes = match format.bits() {
            32 => Storage::Full(vec![0.0; len]),
            16 => Storage::Halves(vec![0; len]),
            8 => Storage::Bytes(vec![zero; bytes]),
            _ => Storage::Nibbles(vec![zero | zero << 4; bytes]),
        };
        let scales = format.scale_count(len);
        let exponents = if format.is_expanded() { scales } else { 0 };
        Self {
            format,
            moment,
            len,
            codes,
            scales: vec![0.0; scales],
            exponents: vec![super::expansion::LEAST; exponents],
        }
    }

    /// The moment with these values, as near as the format has them; a stochastic format rounds them by the bits of seed 0.
    pub fn from_f32(format: StateFormat, moment: Moment, values: &[f32]) -> Self {
        let mut buffer = Self::zeros(format, moment, values.len());
        let view = buffer.view(RandomBits::NONE);
        super::update(values, &mut [], [view], &|values, _, [moment]| {
            moment.copy_from_slice(values);
        });
        buffer
    }

    /// The values.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        // Reading needs no other way through the codes than updates take; a copy is what it costs.
        let mut copy = self.clone();
        let view = copy.view(RandomBits::NONE);
        super::pass::read(view, &mut values);
        values
    }

    /// The values where they lie.
    ///
    /// # Panics
    /// If the format is not f32.
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        match &mut self.codes {
            Storage::Full(values) => values,
            _ => panic!("a moment in {} has no f32 numbers", self.format),
        }
    }

    /// How its elements are coded.
    pub fn format(&self) -> StateFormat {
        self.format
    }

    /// Which moment it is.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that codes and scales take.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.len)
    }

    /// The codes as little-endian bytes; codes of 4 bits two in a byte, the first in its lower half.
    pub fn codes(&self) -> Vec<u8> {
        match &self.codes {
            Storage::Full(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Storage::Halves(halves) => halves.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Storage::Bytes(bytes) | Storage::Nibbles(bytes) => bytes.clone(),
        }
    }

    /// The number format of the codes; `None` where they are places in a map.
    pub fn number_format(&self) -> Option<Format> {
        number_format(self.format)
    }

    /// The scales: one for each block, or for the tensor, or none.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The exponents of expanded blocks, in sixteenths, or none.
    pub fn exponents(&self) -> &[u8] {
        &self.exponents
    }

    /// A moment from what [`codes`](Self::codes), [`scales`](Self::scales) and [`exponents`](Self::exponents) gave.
    ///
    /// # Errors
    /// If their lengths are not those of `len` elements, or a scale or exponent is none.
    pub fn from_parts(
        format: StateFormat,
        moment: Moment,
        len: usize,
        codes: &[u8],
        scales: Vec<f32>,
        exponents: Vec<u8>,
    ) -> Result<Self, DamagedState> {
        let damaged = |problem| DamagedState {
            problem,
            format,
            len,
        };
        // Compared before anything is allocated: a length from a file may be any.
        if len.div_ceil(2) > codes.len() {
            return Err(damaged(format!("{} bytes of codes", codes.len())));
        }
        let mut buffer = Self::zeros(format, moment, len);
        let expected = (
            format.code_bytes(len),
            buffer.scales.len(),
            buffer.exponents.len(),
        );
        if (codes.len(), scales.len(), exponents.len()) != expected {
            return Err(damaged(format!(
                "{} bytes of codes, {} scales and {} exponents",
                codes.len(),
                scales.len(),
                exponents.len()
            )));
        }
        let is_scale = |scale: &f32| scale.is_finite() && *scale >= 0.0;
        if !scales.iter().all(is_scale) || !exponents.iter().all(|steps| is_exponent(*steps)) {
            return Err(damaged("scales or exponents that no moment has".into()));
        }
        match &mut buffer.codes {
            Storage::Full(values) => {
                for (value, bytes) in values.iter_mut().zip(codes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Storage::Halves(halves) => {
                for (half, bytes) in halves.iter_mut().zip(codes.as_chunks().0) {
                    *half = u16::from_le_bytes(*bytes);
                }
            }
            Storage::Bytes(bytes) | Storage::Nibbles(bytes) => bytes.copy_from_slice(codes),
        }
        buffer.scales = scales;
        buffer.exponents = exponents;
        Ok(buffer)
    }

    /// The moment as an update takes it. Stochastic formats read `random` at the index of the element: it must be another stream
    /// for each moment, tensor and step.
    pub fn view(&mut self, random: RandomBits) -> StateView<'_> {
        let codes = match &mut self.codes {
            Storage::Full(values) => return StateView(View::Plain(values)),
            Storage::Halves(halves) => CodeSlice::Halves(halves),
            Storage::Bytes(bytes) => CodeSlice::Bytes(bytes),
            Storage::Nibbles(nibbles) => CodeSlice::Nibbles(nibbles),
        };
        let scale = self.scales.first().copied().unwrap_or(1.0);
        StateView(View::Coded(Coded {
            coder: Coder::new(self.format, self.moment),
            format: self.format,
            len: self.len,
            codes,
            blocks: Blocks {
                scales: &mut self.scales,
                exponents: &mut self.exponents,
            },
            tensor_scales: [scale; 2],
            random,
            start: 0,
        }))
    }
}

/// A moment as updates take it: of a [`StateBuffer`], or f32 numbers in place.
pub struct StateView<'a>(pub(super) View<'a>);

#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one update, which allocates nothing"
)]
pub(super) enum View<'a> {
    Plain(&'a mut [f32]),
    Coded(Coded<'a>),
}

/// A part of a buffer, whole pieces but for the end.
pub(super) struct Coded<'a> {
    pub(super) coder: Coder,
    format: StateFormat,
    len: usize,
    codes: CodeSlice<'a>,
    blocks: Blocks<'a>,
    /// The scale of the tensor before and after the update.
    tensor_scales: [f32; 2],
    random: RandomBits,
    start: u64,
}

impl<'a> From<&'a mut [f32]> for StateView<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self(View::Plain(values))
    }
}

impl<'a> From<&'a mut Vec<f32>> for StateView<'a> {
    fn from(values: &'a mut Vec<f32>) -> Self {
        Self(View::Plain(values))
    }
}

impl StateView<'_> {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            View::Plain(values) => values.len(),
            View::Coded(coded) => coded.len,
        }
    }
}

impl<'a> View<'a> {
    /// The same for a shorter time.
    pub(super) fn reborrow(&mut self) -> View<'_> {
        match self {
            Self::Plain(values) => View::Plain(values),
            Self::Coded(coded) => View::Coded(coded.reborrow()),
        }
    }

    /// Both sides of element `at`, which is the first of a piece.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Plain(values) => {
                let (left, right) = values.split_at_mut(at);
                (Self::Plain(left), Self::Plain(right))
            }
            Self::Coded(coded) => {
                let (left, right) = coded.split_at(at);
                (Self::Coded(left), Self::Coded(right))
            }
        }
    }
}

impl<'a> Coded<'a> {
    fn reborrow(&mut self) -> Coded<'_> {
        Coded {
            codes: match &mut self.codes {
                CodeSlice::Halves(halves) => CodeSlice::Halves(halves),
                CodeSlice::Bytes(bytes) => CodeSlice::Bytes(bytes),
                CodeSlice::Nibbles(nibbles) => CodeSlice::Nibbles(nibbles),
            },
            blocks: Blocks {
                scales: self.blocks.scales,
                exponents: self.blocks.exponents,
            },
            ..*self
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let (left_codes, right_codes) = match self.codes {
            CodeSlice::Halves(halves) => {
                let (left, right) = halves.split_at_mut(at);
                (CodeSlice::Halves(left), CodeSlice::Halves(right))
            }
            CodeSlice::Bytes(bytes) => {
                let (left, right) = bytes.split_at_mut(at);
                (CodeSlice::Bytes(left), CodeSlice::Bytes(right))
            }
            CodeSlice::Nibbles(nibbles) => {
                let (left, right) = nibbles.split_at_mut(at / 2);
                (CodeSlice::Nibbles(left), CodeSlice::Nibbles(right))
            }
        };
        // The one scale of a tensor is known to both sides already.
        let blocks = self.format.scale_count(at).min(self.blocks.scales.len());
        let (left_scales, right_scales) = self.blocks.scales.split_at_mut(blocks);
        let exponents = blocks.min(self.blocks.exponents.len());
        let (left_exponents, right_exponents) = self.blocks.exponents.split_at_mut(exponents);
        let left = Coded {
            len: at,
            codes: left_codes,
            blocks: Blocks {
                scales: left_scales,
                exponents: left_exponents,
            },
            ..self
        };
        let right = Coded {
            coder: self.coder,
            format: self.format,
            len: self.len - at,
            codes: right_codes,
            blocks: Blocks {
                scales: right_scales,
                exponents: right_exponents,
            },
            tensor_scales: self.tensor_scales,
            random: self.random,
            start: self.start + at as u64,
        };
        (left, right)
    }

    /// Sets the scale that the tensor has after the update.
    pub(super) fn set_tensor_scale(&mut self, amax: f32) {
        let scale = self.coder.tensor_scale(amax);
        self.tensor_scales[1] = scale;
        self.blocks.scales.fill(scale);
    }

    /// The codes and scales of the piece from element `at` on.
    fn piece(&mut self, at: usize, len: usize) -> (CodeSlice<'_>, Blocks<'_>) {
        let end = at + len;
        let codes = match &mut self.codes {
            CodeSlice::Halves(halves) => CodeSlice::Halves(&mut halves[at..end]),
            CodeSlice::Bytes(bytes) => CodeSlice::Bytes(&mut bytes[at..end]),
            CodeSlice::Nibbles(nibbles) => {
                CodeSlice::Nibbles(&mut nibbles[at / 2..end.div_ceil(2)])
            }
        };
        let blocks = if self.coder.has_tensor_scale() {
            0..0
        } else {
            self.format.scale_count(at)..self.format.scale_count(end)
        };
        let exponents = if self.format.is_expanded() {
            blocks.clone()
        } else {
            0..0
        };
        let blocks = Blocks {
            scales: &mut self.blocks.scales[blocks],
            exponents: &mut self.blocks.exponents[exponents],
        };
        (codes, blocks)
    }

    /// Writes the values of the piece from element `at` on.
    pub(super) fn decode(&mut self, at: usize, out: &mut [f32]) {
        debug_assert!(at.is_multiple_of(PIECE) && out.len() <= PIECE);
        let (coder, [scale, _]) = (self.coder, self.tensor_scales);
        let (codes, blocks) = self.piece(at, out.len());
        coder.decode(&codes, &blocks, scale, out);
    }

    /// Codes the values of the piece from element `at` on, and leaves something in them.
    pub(super) fn encode(&mut self, at: usize, values: &mut [f32]) {
        debug_assert!(at.is_multiple_of(PIECE) && values.len() <= PIECE);
        let (coder, [_, scale]) = (self.coder, self.tensor_scales);
        let (random, start) = (self.random, self.start + at as u64);
        let (mut codes, mut blocks) = self.piece(at, values.len());
        coder.encode(values, &mut codes, &mut blocks, scale, random, start);
    }
}
