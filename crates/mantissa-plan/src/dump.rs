//! A profile from tensors that another framework dumped.
//!
//! A dump is a safetensors file of f32, f16 or bf16 tensors, whose names say what they are. Of each product Y = L R it
//! holds three, in the layout in which the framework has them:
//!
//! | name | shape | what |
//! |---|---|---|
//! | `SITE/lhs` | `[.., m, k]` | L, the activations |
//! | `SITE/rhs` | `[.., k, n]` | R, as in `lhs @ rhs` |
//! | `SITE/weight`, in place of `SITE/rhs` | `[n, k]` | R transposed, as PyTorch's `nn.Linear` keeps its weight |
//! | `SITE/grad` | `[.., m, n]` | the gradient of the loss by Y |
//!
//! All three passes follow from them. If `rhs` has two axes it is the same matrix for all leading axes of the others; if it
//! has more, its leading axes are those of the others, as in attention.
//!
//! Or it holds the operands of each pass as a profile does, `SITE/PASS/OPERAND`, each `[.., outer, depth]` with the
//! contraction along the last axis: `x/forward/lhs` `[m, k]`, `x/forward/rhs` `[n, k]`, `x/grad_lhs/grad` `[m, n]`,
//! `x/grad_lhs/rhs` `[k, n]`, `x/grad_rhs/lhs` `[k, m]`, `x/grad_rhs/grad` `[n, m]`.
//!
//! `@STEP` after a name says of which training step a tensor is; without it, of step 0. Several steps make a better
//! profile.

use std::collections::BTreeMap;
use std::fmt;

use mantissa_formats::{Format, Overflow, Rounder, Rounding};
use mantissa_metrics::Moments;
use mantissa_quant::Operand;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::profile::{LAST_STEP, Profile, ProfileError};
use crate::sampling::{SampledPass, Sampling, draws, finite_amax};
use crate::site::{Pass, Role, Site, SiteKind};

/// Why a dump is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// There is no tensor.
    #[error(
        "the dump holds no tensor; name tensors SITE/lhs, SITE/rhs or SITE/weight, and SITE/grad"
    )]
    Empty,
    /// One tensor is not what a dump holds.
    #[error("tensor `{tensor}` {problem}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The tensors of one site and step do not make a product.
    #[error("site `{site}`, step {step}: {problem}")]
    Site {
        /// The site.
        site: String,
        /// The step.
        step: u64,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What the last part of a tensor's name says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// `lhs`, `rhs` or `grad` of the product, or an operand of the given pass.
    Operand(Option<Pass>, Role),
    /// The right factor as PyTorch keeps it.
    Weight,
}

impl Part {
    fn pass(self) -> Option<Pass> {
        match self {
            Part::Operand(pass, _) => pass,
            Part::Weight => None,
        }
    }
}

/// The tensors of one site in one step.
type Parts = BTreeMap<Part, Tensor>;

struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// A tensor as a batch of matrices.
struct Matrices<'a> {
    values: &'a [f32],
    offsets: Vec<usize>,
    rows: usize,
    columns: usize,
}

/// The profile of the tensors of a dump.
pub(crate) fn read(tensors: &SafeTensors<'_>) -> Result<Profile, ProfileError> {
    let sites = sort(tensors)?;
    let kinds = sites.iter().map(|((_, site), steps)| {
        let is_batched = steps.values().flatten().any(|(part, view)| {
            matches!(part, Part::Operand(_, Role::Rhs)) && view.shape().len() > 2
        });
        let kind = if is_batched {
            SiteKind::Matmul
        } else {
            SiteKind::Linear
        };
        Site::new(site.clone(), kind)
    });
    let mut profile = Profile::new(&kinds.collect::<Vec<_>>());
    for (index, ((_, site), steps)) in sites.into_iter().enumerate() {
        for (step, views) in steps {
            // Views of the file are cheap; the elements, of one site and step at a time, are not.
            let mut parts = Parts::new();
            for (part, view) in views {
                parts.insert(part, tensor(&name(&site, part, step), &view)?);
            }
            let measured = measure(index, &site, step, &parts)?;
            for (
                pass,
                SampledPass {
                    sample,
                    left,
                    right,
                },
            ) in measured
            {
                profile.record(&site, pass, sample, left, right)?;
            }
        }
    }
    Ok(profile)
}

/// The parts of a name between dots, numbers by their value, so that layer 10 comes after layer 2.
type Order = Vec<(Option<u64>, String)>;
type Views<'a> = BTreeMap<Part, TensorView<'a>>;
type Steps<'a> = BTreeMap<u64, Views<'a>>;

/// The tensors by site and step.
fn sort<'a>(
    tensors: &'a SafeTensors<'_>,
) -> Result<BTreeMap<(Order, String), Steps<'a>>, DumpError> {
    let mut sites: BTreeMap<_, Steps> = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let (site, part, step) = parse(name)?;
        let order: Order = site
            .split('.')
            .map(|word| (word.parse().ok(), word.to_string()))
            .collect();
        let steps = sites.entry((order, site.to_string())).or_default();
        if steps.entry(step).or_default().insert(part, view).is_some() {
            return Err(fault(
                name,
                format!("is there twice: without a step it is of step 0, as `@{step}` says too"),
            ));
        }
    }
    if sites.is_empty() {
        return Err(DumpError::Empty);
    }
    Ok(sites)
}

fn fault(tensor: &str, problem: impl Into<String>) -> DumpError {
    DumpError::Tensor {
        tensor: tensor.to_string(),
        problem: problem.into(),
    }
}

/// Site, part and step from a tensor's name.
fn parse(name: &str) -> Result<(&str, Part, u64), DumpError> {
    let (path, step) = match name.rsplit_once('@') {
        None => (name, 0),
        Some((path, step)) => match step.parse() {
            Ok(step) if step <= LAST_STEP => (path, step),
            _ => {
                return Err(fault(
                    name,
                    format!(
                        "has `@{step}` where a step belongs: a whole number from 0 to 2^63 - 1"
                    ),
                ));
            }
        },
    };
    let words: Vec<&str> = path.split('/').collect();
    let (site, pass, operand) = match words[..] {
        [site, operand] if !site.is_empty() => (site, None, operand),
        [site, pass, operand] if !site.is_empty() => match pass.parse::<Pass>() {
            Ok(pass) => (site, Some(pass), operand),
            Err(unknown) => return Err(fault(name, format!("is of no pass: {unknown}"))),
        },
        _ => {
            return Err(fault(
                name,
                "is neither SITE/OPERAND nor SITE/PASS/OPERAND, such as `encoder.query/lhs`; a site's own path has dots, not \
                 slashes",
            ));
        }
    };
    let role = [Role::Lhs, Role::Rhs, Role::Grad]
        .into_iter()
        .find(|role| role.name() == operand);
    let part = match (pass, role) {
        (None, Some(role)) => Part::Operand(None, role),
        (None, None) if operand == "weight" => Part::Weight,
        (None, None) => {
            return Err(fault(
                name,
                format!("is of no operand: `{operand}` is not one of lhs, rhs, weight and grad"),
            ));
        }
        (Some(pass), Some(role)) if pass.operands().contains(&role) => {
            Part::Operand(Some(pass), role)
        }
        (Some(pass), _) => {
            let [left, right] = pass.operands();
            return Err(fault(
                name,
                format!("is of no operand: those of {pass} are {left} and {right}"),
            ));
        }
    };
    Ok((site, part, step))
}

/// The name of a part, as messages have it.
fn name(site: &str, part: Part, step: u64) -> String {
    let path = match part {
        Part::Weight => format!("{site}/weight"),
        Part::Operand(None, role) => format!("{site}/{role}"),
        Part::Operand(Some(pass), role) => format!("{site}/{pass}/{role}"),
    };
    match step {
        0 => path,
        _ => format!("{path}@{step}"),
    }
}

/// A tensor's elements, which must be worth measuring.
fn tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor, DumpError> {
    let shape = view.shape().to_vec();
    if shape.len() < 2 || shape.contains(&0) {
        return Err(fault(
            name,
            format!("has the shape {shape:?}; it must have two axes or more, and elements"),
        ));
    }
    let Some(values) = to_f32(view) else {
        return Err(fault(
            name,
            format!(
                "is {:?}; dump operands as float32, float16 or bfloat16, as they are before they are quantized",
                view.dtype()
            ),
        ));
    };
    let moments = Moments::of(&values);
    let problem = if moments.non_finite > 0 {
        Some(format!(
            "is NaN or infinite in {} of {} elements; dump a step whose loss and gradients are finite",
            moments.non_finite,
            moments.total()
        ))
    } else if moments.zeros == moments.count {
        Some("is all zeros, from which nothing can be told; dump a step in which the site takes part, or leave it out".into())
    } else if values.iter().all(|&x| x == values[0]) {
        Some(format!(
            "is the constant {}, which every format holds exactly; dump a step of real training, or leave its site out",
            values[0]
        ))
    } else {
        None
    };
    match problem {
        Some(problem) => Err(fault(name, problem)),
        None => Ok(Tensor {
            name: name.to_string(),
            shape,
            values,
        }),
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let narrow = |format| {
        let words = view.data().as_chunks().0.iter();
        let codes: Vec<u16> = words.map(|&word| u16::from_le_bytes(word)).collect();
        let mut values = vec![0.0; codes.len()];
        Rounder::new(format, Rounding::Nearest, Overflow::Special).decode_u16(&codes, &mut values);
        values
    };
    match view.dtype() {
        Dtype::F32 => {
            let words = view.data().as_chunks().0.iter();
            Some(words.map(|&word| f32::from_le_bytes(word)).collect())
        }
        Dtype::F16 => Some(narrow(Format::FP16)),
        Dtype::BF16 => Some(narrow(Format::BF16)),
        _ => None,
    }
}

impl Tensor {
    /// As matrices of the last two axes; without `batched` as a single one, with all axes but the last as rows.
    fn matrices(&self, batched: bool) -> Matrices<'_> {
        let (columns, outer) = (
            self.shape[self.shape.len() - 1],
            &self.shape[..self.shape.len() - 1],
        );
        let rows = if batched {
            outer[outer.len() - 1]
        } else {
            outer.iter().product()
        };
        let size = rows * columns;
        Matrices {
            values: &self.values,
            offsets: (0..self.values.len() / size).map(|i| i * size).collect(),
            rows,
            columns,
        }
    }

    fn leading(&self) -> &[usize] {
        &self.shape[..self.shape.len() - 2]
    }
}

impl Matrices<'_> {
    /// One operand whose contraction runs along the rows.
    fn operand(&self) -> Operand<'_> {
        Operand {
            data: self.values,
            offsets: &self.offsets,
            outer: self.rows,
            depth: self.columns,
            outer_stride: self.columns,
            depth_stride: 1,
        }
    }
}

/// Measures the three passes of one site in one step.
fn measure(
    index: usize,
    site: &str,
    step: u64,
    parts: &Parts,
) -> Result<Vec<(Pass, SampledPass)>, DumpError> {
    let measured = match parts.keys().filter(|part| part.pass().is_some()).count() {
        0 => measure_product(index, step, parts),
        all if all == parts.len() => measure_passes(index, step, parts),
        _ => Err(
            "some tensors are named SITE/OPERAND and others SITE/PASS/OPERAND; name all in one way"
                .into(),
        ),
    };
    measured.map_err(|problem| DumpError::Site {
        site: site.to_string(),
        step,
        problem,
    })
}

/// From the three tensors of Y = L R.
fn measure_product(
    index: usize,
    step: u64,
    parts: &Parts,
) -> Result<Vec<(Pass, SampledPass)>, String> {
    let find = |role| parts.get(&Part::Operand(None, role));
    let (factor, is_weight) = match (find(Role::Rhs), parts.get(&Part::Weight)) {
        (Some(_), Some(_)) => {
            return Err("it has both `rhs` and `weight`; they are one operand".into());
        }
        (Some(rhs), None) => (Some(rhs), false),
        (None, weight) => (weight, weight.is_some()),
    };
    let [Some(lhs), Some(rhs), Some(grad)] = [find(Role::Lhs), factor, find(Role::Grad)] else {
        let missing = [
            (find(Role::Lhs), "lhs"),
            (factor, "rhs (or weight)"),
            (find(Role::Grad), "grad"),
        ];
        let missing = missing.into_iter().filter(|(tensor, _)| tensor.is_none());
        return Err(format!(
            "it lacks {}; all three passes need lhs, rhs (or weight) and grad",
            missing
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(" and ")
        ));
    };
    let is_batched = rhs.shape.len() > 2;
    let [l, r, g] = [lhs, rhs, grad].map(|tensor| tensor.matrices(is_batched));
    let [k, n] = if is_weight {
        [r.columns, r.rows]
    } else {
        [r.rows, r.columns]
    };
    let same_batch = !is_batched
        || [lhs, grad]
            .iter()
            .all(|tensor| tensor.leading() == rhs.leading());
    if (l.columns, g.columns, l.rows) != (k, n, g.rows) || !same_batch || (is_weight && is_batched)
    {
        return Err(format!(
            "{lhs}, {rhs} and {grad} are no product; they must be lhs [.., m, k], rhs [k, n] or [.., k, n], and grad [.., m, n], \
             and a right factor [n, k], as PyTorch's linear layers have it, is named SITE/weight"
        ));
    }
    let (l, g) = (l.operand(), g.operand());
    let r = if is_weight {
        r.operand()
    } else {
        r.operand().transposed()
    };
    sample(
        index,
        step,
        [
            (Pass::Forward, [l, r]),
            (Pass::GradLhs, [g, r.transposed()]),
            (Pass::GradRhs, [l.transposed(), g.transposed()]),
        ],
    )
}

/// From both operands of each pass, with the contraction along their last axis.
fn measure_passes(
    index: usize,
    step: u64,
    parts: &Parts,
) -> Result<Vec<(Pass, SampledPass)>, String> {
    let find = |pass: Pass| {
        pass.operands()
            .map(|role| parts.get(&Part::Operand(Some(pass), role)))
    };
    let mut missing = Vec::new();
    for pass in Pass::ALL {
        for (role, tensor) in pass.operands().into_iter().zip(find(pass)) {
            if tensor.is_none() {
                missing.push(format!("{pass}/{role}"));
            }
        }
    }
    let pairs = Pass::ALL.map(find);
    let [
        [Some(fl), Some(fr)],
        [Some(lg), Some(lr)],
        [Some(rl), Some(rg)],
    ] = pairs
    else {
        return Err(format!(
            "it lacks {}; dump both operands of all three passes, or the three tensors SITE/lhs, SITE/rhs (or SITE/weight) and \
             SITE/grad, from which they follow",
            missing.join(", ")
        ));
    };
    let forward = factors(fl, fr)?;
    let grad_lhs = factors(lg, lr)?;
    let grad_rhs = factors(rl, rg)?;
    let [m, k, n] = [forward[0].rows, forward[0].columns, forward[1].rows];
    let shapes =
        [&grad_lhs, &grad_rhs].map(|pair| pair.each_ref().map(|one| [one.rows, one.columns]));
    if shapes != [[[m, n], [k, n]], [[k, m], [n, m]]] {
        return Err(format!(
            "its passes are of different products: {fl} and {fr}, {lg} and {lr}, {rl} and {rg}; they must be forward/lhs [m, k], \
             forward/rhs [n, k], grad_lhs/grad [m, n], grad_lhs/rhs [k, n], grad_rhs/lhs [k, m], grad_rhs/grad [n, m]"
        ));
    }
    sample(
        index,
        step,
        [
            (Pass::Forward, forward.each_ref().map(Matrices::operand)),
            (Pass::GradLhs, grad_lhs.each_ref().map(Matrices::operand)),
            (Pass::GradRhs, grad_rhs.each_ref().map(Matrices::operand)),
        ],
    )
}

/// Two operands of one pass, `[.., outer, depth]` each.
fn factors<'a>(left: &'a Tensor, right: &'a Tensor) -> Result<[Matrices<'a>; 2], String> {
    let is_batched = right.shape.len() > 2;
    let pair = [left, right].map(|tensor| tensor.matrices(is_batched));
    if pair[0].columns != pair[1].columns || (is_batched && left.leading() != right.leading()) {
        return Err(format!(
            "{left} and {right} do not multiply; both must be [.., outer, depth] with the same depth, the contraction"
        ));
    }
    Ok(pair)
}

/// Samples the three passes' operands.
fn sample(
    index: usize,
    step: u64,
    passes: [(Pass, [Operand<'_>; 2]); 3],
) -> Result<Vec<(Pass, SampledPass)>, String> {
    let [(_, [lhs, _]), ..] = &passes;
    if lhs.batch() * lhs.outer == 1 {
        return Err(
            "it has a single row, from which no spread can be told; dump a batch of two or more"
                .into(),
        );
    }
    let measured = passes.into_iter().filter_map(|(pass, [left, right])| {
        let amax = [finite_amax(&left), finite_amax(&right)];
        let random = draws(0, step, index, pass);
        let measured =
            Sampling::default().measure(step, [&left, &right], amax, [1.0; 2], random)?;
        Some((pass, measured))
    });
    Ok(measured.collect())
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {:?}", self.name, self.shape)
    }
}
