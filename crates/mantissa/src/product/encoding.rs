//! Tensors quantized once for all products that read them.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::Bytes;
use mantissa_formats::{RandomBits, Rounding};
use mantissa_quant::{Amax, Encoded, Granularity, Numerics, encode_into};

use crate::buffer;
use crate::flex_tensor::{Axis, View};
use crate::session::AmaxOf;

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Codes whose memory is kept for the next of their size.
pub(super) struct Codes(Option<Encoded>);

impl Deref for Codes {
    type Target = Encoded;

    fn deref(&self) -> &Encoded {
        let Some(encoded) = &self.0 else {
            unreachable!("codes are taken out only when they are dropped")
        };
        encoded
    }
}

impl Drop for Codes {
    fn drop(&mut self) {
        if let Some(encoded) = self.0.take() {
            buffer::keep_codes(encoded.into_codes());
        }
    }
}

/// The codes of a tensor, in the order of its rows, if a byte an element and one scale say all.
pub(super) fn of(
    tensor: &FlexTensor,
    numerics: &Numerics,
    amax: Amax,
    random: RandomBits,
) -> Option<Arc<Codes>> {
    let one_scale = matches!(
        numerics.granularity,
        Granularity::Unscaled | Granularity::Tensor
    );
    if !one_scale || numerics.format.bits() > 8 {
        return None;
    }
    let view = View::new(tensor, Axis::Row);
    let operand = view.operand();
    let codes = buffer::codes(operand.count());
    let encoded = encode_into(&operand, numerics, amax, random, codes)?;
    Some(Arc::new(Codes(Some(encoded))))
}

/// The input that this thread encoded last: queries, keys and values are products of one.
struct Last {
    /// Burn gives a buffer another identity before it writes to it while this exists.
    buffer: Weak<Bytes>,
    layout: Layout,
    numerics: Numerics,
    amax_of: AmaxOf,
    encoded: Arc<Codes>,
}

/// [`of`] an input that the product before may have read too; scaled by the amax of `amax_of`, which is the whole batch's
/// by `raise`.
pub(super) fn of_input(
    tensor: &FlexTensor,
    numerics: &Numerics,
    amax_of: AmaxOf,
    raise: &(dyn Fn(&mut [f32]) + Sync),
    random: RandomBits,
) -> Option<Arc<Codes>> {
    let amax = amax_of.with(raise);
    if numerics.rounding == Rounding::Stochastic {
        // Every site draws its own bits.
        return of(tensor, numerics, amax, random);
    }
    let buffer = tensor.data_arc();
    let known = LAST.with_borrow(|last| {
        last.as_ref()
            .filter(|last| {
                last.numerics == *numerics
                    && last.amax_of == amax_of
                    && last.layout == *tensor.layout()
                    && last
                        .buffer
                        .upgrade()
                        .is_some_and(|last| Arc::ptr_eq(&last, &buffer))
            })
            .map(|last| last.encoded.clone())
    });
    if let Some(known) = known {
        if let (Amax::Shared(sharing), Some(own)) = (amax, known.report().amax) {
            // Other ranks may not know the tensor, where theirs lies in memory otherwise, and wait for this one.
            (sharing.raise)(&mut [own]);
        }
        return Some(known);
    }
    let encoded = of(tensor, numerics, amax, random)?;
    LAST.set(Some(Last {
        buffer: Arc::downgrade(&buffer),
        layout: tensor.layout().clone(),
        numerics: *numerics,
        amax_of,
        encoded: encoded.clone(),
    }));
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;

    fn codes(
        tensor: &FlexTensor,
        numerics: &Numerics,
        amax_of: AmaxOf,
        random: RandomBits,
    ) -> Arc<Codes> {
        of_input(tensor, numerics, amax_of, &|_| (), random).unwrap()
    }

    fn tensor() -> FlexTensor {
        let values: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
        Buffer::from(values).into_tensor(&[6, 10])
    }

    #[test]
    fn a_tensor_is_encoded_once_until_it_changes() {
        let numerics: Numerics = "e4m3/tensor".parse().unwrap();
        let encoded =
            |tensor: &FlexTensor| codes(tensor, &numerics, AmaxOf::Operand, RandomBits::NONE);
        let mut tensor = tensor();
        let first = encoded(&tensor);
        // As each product encodes its weight after its input.
        let weight = Buffer::from(vec![1.0; 60]).into_tensor(&[10, 6]);
        assert!(of(&weight, &numerics, Amax::Own, RandomBits::NONE).is_some());
        assert!(Arc::ptr_eq(&first, &encoded(&tensor)));

        tensor.storage_mut::<f32>()[3] = 9.0;
        let changed = encoded(&tensor);
        assert_ne!(first.codes(), changed.codes());
        let other: Numerics = "e5m2/tensor".parse().unwrap();
        let coarser = codes(&tensor, &other, AmaxOf::Operand, RandomBits::NONE);
        assert_ne!(changed.codes(), coarser.codes());
        let wider = codes(&tensor, &other, AmaxOf::Steps(100.0), RandomBits::NONE);
        assert_ne!(wider.codes(), coarser.codes());
    }

    #[test]
    fn stochastic_codes_are_drawn_for_each_product() {
        let numerics: Numerics = "e4m3/tensor/stochastic".parse().unwrap();
        let (tensor, random) = (tensor(), |stream| RandomBits::new(1, stream));
        let drawn = |stream| codes(&tensor, &numerics, AmaxOf::Operand, random(stream));
        assert_ne!(drawn(1).codes(), drawn(2).codes());
        assert_eq!(drawn(1).codes(), drawn(1).codes());
    }
}
