//! The products of a model and the numerics of their operands.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

/// What a site computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// Activations times a weight: a linear layer, or a convolution over the windows of its input.
    Linear,
    /// A product of two activations, for example attention scores.
    Matmul,
    /// A look-up of rows in a table. It multiplies nothing: only `rhs` of the forward pass, the table, has numerics.
    Embedding,
}

impl SiteKind {
    /// Whether the site multiplies, so that its three passes have operands.
    pub const fn is_product(self) -> bool {
        !matches!(self, SiteKind::Embedding)
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SiteKind::Linear => "linear",
            SiteKind::Matmul => "matmul",
            SiteKind::Embedding => "embedding",
        })
    }
}

/// One product of a network, named by its dotted path (`encoder.layers.0.mha.query`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The dotted path.
    pub name: String,
    /// What it computes.
    pub kind: SiteKind,
}

impl Site {
    /// A site of the given name and kind.
    pub fn new(name: impl Into<String>, kind: SiteKind) -> Self {
        Site {
            name: name.into(),
            kind,
        }
    }
}

/// One of the three products a site causes in a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Y = L R.
    Forward,
    /// dL = G Rᵀ.
    GradLhs,
    /// dR = Lᵀ G.
    GradRhs,
}

impl Pass {
    /// The passes in the order in which a training step runs them.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::GradLhs, Pass::GradRhs];

    /// The left and the right operand of this pass's product.
    pub const fn operands(self) -> [Role; 2] {
        match self {
            Pass::Forward => [Role::Lhs, Role::Rhs],
            Pass::GradLhs => [Role::Grad, Role::Rhs],
            Pass::GradRhs => [Role::Lhs, Role::Grad],
        }
    }

    /// `forward`, `grad_lhs` or `grad_rhs`.
    pub const fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::GradLhs => "grad_lhs",
            Pass::GradRhs => "grad_rhs",
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Pass {
    type Err = UnknownPass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Pass::ALL
            .into_iter()
            .find(|pass| pass.name() == text)
            .ok_or_else(|| UnknownPass(text.to_string()))
    }
}

/// A word that names no [`Pass`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no pass `{0}`: the passes are forward, grad_lhs and grad_rhs")]
pub struct UnknownPass(pub String);

/// Which of a site's three tensors an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The left factor of the forward product: activations.
    Lhs,
    /// The right factor of the forward product: a weight, or activations.
    Rhs,
    /// The gradient of the forward product's result.
    Grad,
}

impl Role {
    /// `lhs`, `rhs` or `grad`.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Lhs => "lhs",
            Role::Rhs => "rhs",
            Role::Grad => "grad",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The numerics of a pass's two operands, in the order of [`Pass::operands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PassNumerics {
    /// The left operand's.
    pub left: Numerics,
    /// The right operand's.
    pub right: Numerics,
}

impl PassNumerics {
    /// Both operands in f32: the product is computed as if there were no plan.
    pub const FP32: PassNumerics = PassNumerics::both(Numerics::FP32);

    /// The same numerics for both operands.
    pub const fn both(numerics: Numerics) -> Self {
        PassNumerics {
            left: numerics,
            right: numerics,
        }
    }

    /// The numerics by operand of this pass.
    pub fn by_role(&self, pass: Pass) -> BTreeMap<Role, Numerics> {
        let [left, right] = pass.operands();
        BTreeMap::from([(left, self.left), (right, self.right)])
    }

    /// Whether neither operand is quantized.
    pub fn is_fp32(&self) -> bool {
        self.left.is_fp32() && self.right.is_fp32()
    }
}

/// The numerics of all operands of a site's three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiteNumerics {
    /// Y = L R.
    pub forward: PassNumerics,
    /// dL = G Rᵀ.
    pub grad_lhs: PassNumerics,
    /// dR = Lᵀ G.
    pub grad_rhs: PassNumerics,
}

impl SiteNumerics {
    /// Every operand in f32: the site computes exactly what it would without a plan.
    pub const FP32: SiteNumerics = SiteNumerics {
        forward: PassNumerics::FP32,
        grad_lhs: PassNumerics::FP32,
        grad_rhs: PassNumerics::FP32,
    };

    /// The numerics of one pass.
    pub fn pass(&self, pass: Pass) -> &PassNumerics {
        match pass {
            Pass::Forward => &self.forward,
            Pass::GradLhs => &self.grad_lhs,
            Pass::GradRhs => &self.grad_rhs,
        }
    }

    /// The numerics of one pass, to change.
    pub fn pass_mut(&mut self, pass: Pass) -> &mut PassNumerics {
        match pass {
            Pass::Forward => &mut self.forward,
            Pass::GradLhs => &mut self.grad_lhs,
            Pass::GradRhs => &mut self.grad_rhs,
        }
    }

    /// The six operands of the three passes with their numerics.
    pub fn operands(&self) -> [(Pass, Role, Numerics); 6] {
        let both = Pass::ALL.map(|pass| {
            let ([left, right], numerics) = (pass.operands(), self.pass(pass));
            [(pass, left, numerics.left), (pass, right, numerics.right)]
        });
        let [forward, grad_lhs, grad_rhs] = both;
        [
            forward[0],
            forward[1],
            grad_lhs[0],
            grad_lhs[1],
            grad_rhs[0],
            grad_rhs[1],
        ]
    }

    /// Whether no operand of any pass is quantized.
    pub fn is_fp32(&self) -> bool {
        Pass::ALL.iter().all(|&pass| self.pass(pass).is_fp32())
    }
}
