//! What a product multiplies.

use mantissa_formats::RandomBits;

use crate::amax::Amax;
use crate::encoded::Encoded;
use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::operand::Operand;

/// One side of a product: values that are still to be quantized, or codes that already are.
#[derive(Copy, Clone, Debug)]
pub struct Factor<'a> {
    pub(crate) source: Source<'a>,
}

#[derive(Copy, Clone, Debug)]
pub(crate) enum Source<'a> {
    Values {
        operand: Operand<'a>,
        numerics: Numerics,
        random: RandomBits,
        amax: Amax<'a>,
    },
    Codes {
        encoded: &'a Encoded,
        transposed: bool,
    },
}

impl<'a> Factor<'a> {
    /// An operand that the product quantizes; only stochastic rounding reads the random bits.
    pub const fn new(operand: Operand<'a>, numerics: Numerics, random: RandomBits) -> Self {
        let source = Source::Values {
            operand,
            numerics,
            random,
            amax: Amax::Own,
        };
        Factor { source }
    }

    /// The same, scaled by another amax than its own.
    pub const fn with_amax(mut self, scaled_by: Amax<'a>) -> Self {
        if let Source::Values { amax, .. } = &mut self.source {
            *amax = scaled_by;
        }
        self
    }

    /// An operand taken as it is.
    pub const fn fp32(operand: Operand<'a>) -> Self {
        Factor::new(operand, Numerics::FP32, RandomBits::NONE)
    }

    pub(crate) const fn encoded(encoded: &'a Encoded, transposed: bool) -> Self {
        let source = Source::Codes {
            encoded,
            transposed,
        };
        Factor { source }
    }

    /// How the elements are represented.
    pub const fn numerics(&self) -> &Numerics {
        match &self.source {
            Source::Values { numerics, .. } => numerics,
            Source::Codes { encoded, .. } => &encoded.numerics,
        }
    }

    /// Matrices in the batch.
    pub const fn batch(&self) -> usize {
        match &self.source {
            Source::Values { operand, .. } => operand.batch(),
            Source::Codes { encoded, .. } => encoded.batch,
        }
    }

    /// Length of the axis that is not contracted.
    pub const fn outer(&self) -> usize {
        match &self.source {
            Source::Values { operand, .. } => operand.outer,
            Source::Codes {
                encoded,
                transposed: false,
            } => encoded.outer,
            Source::Codes { encoded, .. } => encoded.depth,
        }
    }

    /// Length of the contracted axis.
    pub const fn depth(&self) -> usize {
        match &self.source {
            Source::Values { operand, .. } => operand.depth,
            Source::Codes {
                encoded,
                transposed: false,
            } => encoded.depth,
            Source::Codes { encoded, .. } => encoded.outer,
        }
    }

    /// Whether its elements are integers under scales that can wait for the end of a product.
    pub(crate) fn has_codes(&self) -> bool {
        let numerics = self.numerics();
        let waits = matches!(
            numerics.granularity,
            Granularity::Unscaled | Granularity::Tensor | Granularity::Channel
        );
        numerics.format.is_integer() && waits
    }
}
