//! Which operations run in low precision inside an autocast, and which never do.

use serde::Serialize;

/// The precision of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Operands are rounded to the numerics that the plan has for the site, and summed in f32.
    Low,
    /// All in f32, whatever the plan.
    Full,
    /// In the widest of its inputs, without rounding them; f32 between our own layers.
    Widest,
}

impl Precision {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Low => "low",
            Precision::Full => "f32",
            Precision::Widest => "widest input",
        }
    }
}

/// What an autocast does with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AutocastRule {
    /// The operation.
    pub operation: &'static str,
    /// Its precision.
    pub precision: Precision,
    /// The layers and functions it is part of.
    pub part_of: &'static str,
    /// What `torch.amp` does with it in its autocast to fp16 or bf16.
    pub torch: Precision,
}

const fn rule(
    operation: &'static str,
    precision: Precision,
    part_of: &'static str,
    torch: Precision,
) -> AutocastRule {
    AutocastRule {
        operation,
        precision,
        part_of,
        torch,
    }
}

/// Every operation that an autocast decides about, products first.
///
/// The lists are those of `torch.amp` (`aten/src/ATen/autocast_mode.h`) but where the last column differs: what torch does not
/// list runs in the type of its input there, which is low behind a product. Here the results of products stay in f32, so that
/// an activation cannot overflow between two layers, and nothing else is ever low. A recipe's rules choose the numerics of the
/// low ones site by site, f32 included.
pub const AUTOCAST: [AutocastRule; 17] = [
    rule(
        "linear",
        Precision::Low,
        "Linear, MultiHeadAttention, PositionWiseFeedForward",
        Precision::Low,
    ),
    rule(
        "matmul",
        Precision::Low,
        "matmul, attention's scores and context",
        Precision::Low,
    ),
    rule("conv1d", Precision::Low, "Conv1d", Precision::Low),
    rule("conv2d", Precision::Low, "Conv2d", Precision::Low),
    rule("conv3d", Precision::Low, "Conv3d", Precision::Low),
    rule(
        "conv_transpose1d",
        Precision::Low,
        "ConvTranspose1d",
        Precision::Low,
    ),
    rule(
        "conv_transpose2d",
        Precision::Low,
        "ConvTranspose2d",
        Precision::Low,
    ),
    rule(
        "lstm",
        Precision::Low,
        "the gates' products of Lstm, BiLstm",
        Precision::Low,
    ),
    rule(
        "gru",
        Precision::Low,
        "the gates' products of Gru, BiGru",
        Precision::Low,
    ),
    rule(
        "softmax",
        Precision::Full,
        "MultiHeadAttention",
        Precision::Full,
    ),
    rule(
        "layer_norm",
        Precision::Full,
        "LayerNorm, transformers",
        Precision::Full,
    ),
    rule(
        "cross_entropy",
        Precision::Full,
        "CrossEntropyLoss",
        Precision::Full,
    ),
    rule(
        "sum",
        Precision::Full,
        "gradients of biases, reductions",
        Precision::Full,
    ),
    rule(
        "exp, log, pow",
        Precision::Full,
        "Burn's own operations",
        Precision::Full,
    ),
    rule(
        "gelu",
        Precision::Full,
        "Gelu, transformers",
        Precision::Widest,
    ),
    rule(
        "dropout",
        Precision::Widest,
        "Dropout, transformers",
        Precision::Widest,
    ),
    rule(
        "add, mul, cat",
        Precision::Widest,
        "residuals, Burn's own operations",
        Precision::Widest,
    ),
];
