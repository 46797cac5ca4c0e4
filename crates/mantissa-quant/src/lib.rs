//! Scales, quantized operands and products of quantized operands.

mod grammar;
mod granularity;
mod integer;
mod line;
mod matmul;
mod numerics;
mod operand;
mod panel;
mod product;
mod quantize;
mod scale;
mod store;

pub use grammar::{ParseNumericsError, SHORTHANDS};
pub use granularity::{Granularity, ParseGranularityError, ScaleLayout};
pub use numerics::Numerics;
pub use operand::{Operand, OperandError};
pub use product::{OperandReport, ProductReport, product};
pub use quantize::{Quantized, fake_quantize, quantize};
pub use scale::{ParseScaleKindError, Scale, ScaleKind};
pub use store::{StoredTensor, quantize_rows};
