//! What happens to a value that has no code: [`Rounding`] between two codes, [`Overflow`] beyond the last.

/// Which of its two neighbours on a format's grid a value goes to. Defaults to [`Nearest`](Self::Nearest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rounding {
    /// The nearer neighbour; of two equally near, the one with the even code (IEEE 754 roundTiesToEven).
    #[default]
    Nearest,
    /// Either neighbour, with the probability that makes the expectation the value itself: exact to 32 bits in
    /// the scalar codec, to the [16 bits](crate::RandomBits::amount_at) that are drawn for each element in slices.
    Stochastic,
    /// The neighbour nearer to zero (IEEE 754 roundTowardZero). Never overflows a finite value.
    TowardZero,
    /// The nearer neighbour; of two equally near, the one farther from zero (IEEE 754 roundTiesToAway).
    NearestAway,
}

/// What becomes of a value beyond the largest finite one. Defaults to [`Special`](Self::Special).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Overflow {
    /// It goes to the largest finite value of its sign, infinity too. NaN stays NaN.
    Saturate,
    /// It goes to infinity where the format has one, else to NaN, else it saturates.
    #[default]
    Special,
}

impl Rounding {
    /// Every rounding under its canonical name.
    pub const NAMED: &[(&str, Self)] = &[
        ("nearest", Self::Nearest),
        ("stochastic", Self::Stochastic),
        ("toward-zero", Self::TowardZero),
        ("nearest-away", Self::NearestAway),
    ];
}

impl Overflow {
    /// Every overflow behaviour under its canonical name.
    pub const NAMED: &[(&str, Self)] = &[("saturate", Self::Saturate), ("special", Self::Special)];
}
