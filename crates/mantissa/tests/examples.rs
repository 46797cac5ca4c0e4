//! The examples learn in 8-bit floating point, and about as well as in full precision.

#![allow(
    clippy::duplicate_mod,
    reason = "every example includes the training loop, as a program of its own does"
)]

#[allow(dead_code)]
#[path = "../examples/lstm/main.rs"]
mod lstm;
#[allow(dead_code)]
#[path = "../examples/mnist/main.rs"]
mod mnist;
#[allow(dead_code)]
#[path = "../examples/text_classification/main.rs"]
mod text_classification;

/// The last loss as a share of the first, and the score.
macro_rules! learned {
    ($example:ident, $recipe:expr) => {{
        let run = $example::run($recipe).unwrap();
        assert!(run.losses.iter().all(|loss| loss.is_finite()));
        (run.last_loss() / run.first_loss(), run.score)
    }};
}

/// Trains under both recipes: in 8 bits the loss must fall to `share` of what it was, and the score come within `gap` of
/// full precision's.
macro_rules! check {
    ($example:ident, $share:expr, $gap:expr) => {{
        let (_, full) = learned!($example, "fp32");
        let (share, score) = learned!($example, "fp8-hybrid");
        assert!(share < $share, "the loss fell to {share} of what it was");
        assert!(score > full - $gap, "{score}, in full precision {full}");
    }};
}

/// One after the other: they seed the one generator of the device.
#[test]
fn examples_learn() {
    check!(mnist, 0.3, 0.05);
    check!(text_classification, 0.5, 0.1);
    check!(lstm, 0.2, 0.15);
}
