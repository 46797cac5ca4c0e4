//! Which amax an operand is scaled by.

use std::fmt;

/// Where the amaxes of an operand's scales come from.
#[derive(Clone, Copy, Debug, Default)]
pub enum Amax<'a> {
    /// The operand itself.
    #[default]
    Own,
    /// Somewhere else, such as the steps before, for the one scale of a tensor; elements beyond it overflow.
    Given(f32),
    /// A larger operand, of which this is a part.
    Shared(Sharing<'a>),
}

/// How the parts of an operand come to the scales of the whole, such as those that the ranks of a data parallel training have
/// of a batch.
#[derive(Clone, Copy)]
pub struct Sharing<'a> {
    /// Whether every group of elements that share a scale reaches over all parts; otherwise each lies in one, and the parts
    /// share only the amax of the tensor under two-level scales.
    pub groups: bool,
    /// Raises the amaxes of a part to those of the whole. It is called at most once for an operand, and for all parts alike.
    pub raise: &'a (dyn Fn(&mut [f32]) + Sync),
}

impl Sharing<'_> {
    pub(crate) fn raise(&self, amaxes: &mut [f32]) {
        (self.raise)(amaxes);
    }
}

impl fmt::Debug for Sharing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
