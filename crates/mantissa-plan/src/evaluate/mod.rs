//! What a pair of numerics does to a measured product.

mod excerpt;
mod operand;

use std::collections::HashMap;

use mantissa_formats::RandomBits;
use mantissa_metrics::{BackwardError, Compared, ErrorSums, ExactProduct, SignedError};
use mantissa_quant::Numerics;

use crate::noise::{Alone, Examples, Noise, NoiseSums, Outputs};
use crate::site::{Pass, PassNumerics};

pub use excerpt::Excerpt;
pub use operand::{OperandError, Share};

/// What a pair of numerics does to a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairError {
    /// The pair.
    pub numerics: PassNumerics,
    /// The product's backward error over all samples; `None` where the samples hold nothing but zeros or non-finite products.
    pub product: Option<BackwardError>,
    /// The product's bias, variance and direction; `None` also where an element of it became infinite.
    pub signed: Option<SignedError>,
    /// The left operand's own error.
    pub left: OperandError,
    /// The right operand's own error.
    pub right: OperandError,
    /// The noise it adds to the product, where the evaluator was asked for it.
    pub noise: Option<Noise>,
}

/// Evaluates pairs of numerics on the same excerpts; what pairs have in common is computed once.
pub struct Evaluator<'e> {
    excerpts: &'e [Excerpt],
    exact: Vec<ExactProduct<'e>>,
    /// What noise is measured from.
    unquantized: Option<Unquantized>,
    seed: u64,
    stream: u64,
    quantized: HashMap<(usize, Numerics), QuantizedSide>,
}

/// The products in f32.
struct Unquantized {
    examples: Examples,
    results: Vec<Vec<f32>>,
    /// What each example adds to their squares, where they are the contraction's.
    alone: Vec<Vec<f32>>,
}

/// One operand's rows in some numerics, of every excerpt, and the error over all of them.
struct QuantizedSide {
    rows: Vec<Vec<f32>>,
    /// What noise needs to know of them, where the examples are the contraction's.
    terms: Vec<Vec<f32>>,
    error: OperandError,
}

impl<'e> Evaluator<'e> {
    /// Multiplies the excerpts exactly. Stochastic numerics draw from two streams of `seed` for each excerpt, numbered
    /// from `stream` on.
    pub fn new(excerpts: &'e [Excerpt], seed: u64, stream: u64) -> Self {
        let exact = excerpts
            .iter()
            .map(|excerpt| {
                let [left, right] = &excerpt.sides;
                ExactProduct::new(
                    &left.view(excerpt.depth(), &left.rows),
                    &right.view(excerpt.depth(), &right.rows),
                )
            })
            .collect();
        Evaluator {
            excerpts,
            exact,
            unquantized: None,
            seed,
            stream,
            quantized: HashMap::new(),
        }
    }

    /// The same, also finding the noise of every pair.
    pub fn with_noise(mut self, examples: Examples) -> Self {
        let results = self
            .excerpts
            .iter()
            .map(|excerpt| excerpt.multiply([&excerpt.sides[0].rows, &excerpt.sides[1].rows]));
        let alone = self.excerpts.iter().map(Excerpt::alone_exact);
        // What was quantized so far lacks what noise needs.
        self.quantized.clear();
        self.unquantized = Some(Unquantized {
            examples,
            results: results.collect(),
            alone: match examples {
                Examples::Depth => alone.collect(),
                Examples::None | Examples::Rows => Vec::new(),
            },
        });
        self
    }

    /// What this pair of numerics does to the product.
    pub fn pair(&mut self, numerics: PassNumerics) -> PairError {
        self.quantize(0, numerics.left);
        self.quantize(1, numerics.right);
        let (left, right) = (
            &self.quantized[&(0, numerics.left)],
            &self.quantized[&(1, numerics.right)],
        );
        let results: Vec<Vec<f32>> = self
            .excerpts
            .iter()
            .zip(left.rows.iter().zip(&right.rows))
            .map(|(excerpt, (left, right))| excerpt.multiply([left, right]))
            .collect();
        let products = || self.exact.iter().zip(&results);
        let signed: Vec<Vec<f64>> = products()
            .map(|(exact, result)| exact.signed_errors_of(result))
            .collect();
        let compared: Vec<Compared> = products()
            .zip(&signed)
            .map(|((exact, result), signed)| Compared::new(exact, result, signed))
            .collect();
        let defined = signed.iter().flatten().filter(|error| !error.is_nan());
        let errors: Vec<f64> = defined.map(|error| error.abs()).collect();
        let outputs: usize = results.iter().map(Vec::len).sum();
        let excluded = (outputs - errors.len()) as u64;
        let independent = self.excerpts.iter().map(Excerpt::independent).sum();
        PairError {
            numerics,
            noise: self
                .unquantized
                .as_ref()
                .map(|unquantized| self.noise(unquantized, [left, right], &results)),
            signed: SignedError::of(&compared),
            product: BackwardError::from_errors(errors, independent, excluded),
            left: left.error,
            right: right.error,
        }
    }

    fn noise(
        &self,
        unquantized: &Unquantized,
        quantized: [&QuantizedSide; 2],
        results: &[Vec<f32>],
    ) -> Noise {
        let mut sums = NoiseSums::default();
        for (index, (excerpt, result)) in self.excerpts.iter().zip(results).enumerate() {
            let [left, right] = excerpt.outer();
            let alone = unquantized.alone.get(index).map(|signal| {
                let [along, noise] = excerpt.alone(quantized.map(|side| &side.terms[index][..]));
                Alone {
                    signal,
                    along,
                    noise,
                }
            });
            let outputs = Outputs {
                exact: &unquantized.results[index],
                quantized: result,
                left,
                right,
                alone: alone.as_ref(),
            };
            sums.add(&outputs, unquantized.examples);
        }
        sums.noise()
    }

    /// Drops what was quantized of the left (0) or right (1) operand, which a long list of pairs need not keep.
    pub(crate) fn forget(&mut self, side: usize) {
        self.quantized.retain(|&(kept, _), _| kept != side);
    }

    fn quantize(&mut self, side: usize, numerics: Numerics) {
        if self.quantized.contains_key(&(side, numerics)) {
            return;
        }
        let random = |index: usize| {
            RandomBits::new(
                self.seed,
                self.stream.wrapping_add((2 * index + side) as u64),
            )
        };
        let (rows, errors): (Vec<Vec<f32>>, Vec<Vec<ErrorSums>>) = self
            .excerpts
            .iter()
            .enumerate()
            .map(|(index, excerpt)| {
                excerpt.sides[side].quantized(excerpt.depth(), &numerics, random(index))
            })
            .unzip();
        let adds_up = self
            .unquantized
            .as_ref()
            .is_some_and(|unquantized| unquantized.examples == Examples::Depth);
        let terms = self.excerpts.iter().zip(&rows);
        let terms = terms.map(|(excerpt, rows)| excerpt.terms(side, rows));
        let quantized = QuantizedSide {
            terms: if adds_up { terms.collect() } else { Vec::new() },
            error: OperandError::of(&errors.concat()),
            rows,
        };
        self.quantized.insert((side, numerics), quantized);
    }
}

/// A stream of random bits for each pass of each site: FNV-1a of the names, shifted to leave room for the excerpts.
pub(crate) fn stream(site: &str, pass: Pass) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = site.bytes().chain([0xff]).chain(pass.name().bytes());
    bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    }) << 8
}
