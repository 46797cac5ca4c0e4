//! Scales, quantized operands and products of quantized operands.
//!
//! [`Numerics`] says how one operand is represented: format, granularity, scale kind, amax policy, rounding
//! and overflow, written as one token. An [`Operand`] is a strided view of a batch of matrices as one
//! product sees it. [`quantize`] turns it into elements on the format's grid and scales, and
//! [`product`] multiplies two operands, quantizing both first, or takes what [`encode`] quantized before.
//!
//! Results never depend on the number of threads.
//!
//! ```
//! use mantissa_formats::RandomBits;
//! use mantissa_quant::{Factor, Numerics, Operand, encode, product, quantize};
//!
//! // Y = L R with a left operand of 2 x 3 and a right one of 3 x 2.
//! let l = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let r = [1.0, 0.5, 0.25, 1.0, 0.5, 2.0];
//! let lhs = Operand::matrix(&l, 2, 3)?;
//! let rhs = Operand::matrix(&r, 3, 2)?.transposed(); // as [columns, depth]
//!
//! let int8: Numerics = "int8/channel".parse()?;
//! let quantized = quantize(&lhs, &int8, RandomBits::NONE);
//! assert_eq!(quantized.values, [42.0, 85.0, 127.0, 85.0, 106.0, 127.0]);
//! assert_eq!(quantized.scales, [3.0 / 127.0, 6.0 / 127.0]);
//!
//! // Every operand has numerics of its own; only stochastic rounding reads its random bits.
//! let e5m2: Numerics = "e5m2/tensor/stochastic".parse()?;
//! let mut y = [0.0; 4];
//! let report = product(
//!     Factor::new(lhs, int8, RandomBits::NONE),
//!     Factor::new(rhs, e5m2, RandomBits::new(7, 0)),
//!     None, // no bias
//!     &mut y,
//! );
//! assert_eq!(report.rhs.non_finite, 0);
//! for (y, exact) in y.iter().zip([3.0, 8.5, 8.25, 19.0]) {
//!     assert!((y - exact).abs() < 0.2 * exact);
//! }
//!
//! // An operand that several products read is quantized once and kept as bytes.
//! let codes = encode(&rhs, &e5m2, RandomBits::new(7, 0)).expect("8 bits and one scale");
//! let mut again = [0.0; 4];
//! product(Factor::new(lhs, int8, RandomBits::NONE), codes.factor(), None, &mut again);
//! assert_eq!(again, y);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod amax;
mod amax_policy;
mod encoded;
mod factor;
mod gemm;
mod grammar;
mod granularity;
mod line;
mod numerics;
mod operand;
mod panel;
mod product;
mod quantize;
mod rows;
mod scale;
mod scaled;
mod store;

pub use amax::{Amax, Sharing};
pub use amax_policy::{AmaxPolicy, ParseAmaxPolicyError};
pub use encoded::{Encoded, encode, encode_into};
pub use factor::Factor;
pub use grammar::{ParseNumericsError, SHORTHANDS};
pub use granularity::{Granularity, ParseGranularityError, ScaleLayout};
pub use numerics::Numerics;
pub use operand::{Operand, OperandError};
pub use panel::amax;
pub use product::{OperandReport, ProductReport, product};
pub use quantize::{
    Quantized, fake_quantize, fake_quantize_in_place, fake_quantize_into, quantize,
};
pub use rows::{decode_rows, encode_rows, scales_of_rows};
pub use scale::{ParseScaleKindError, Scale, ScaleKind};
pub use store::{StoredTensor, quantize_rows};
