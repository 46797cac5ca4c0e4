//! Rules a person wrote: which sites get which numerics.

use std::collections::HashSet;

use globset::{Glob, GlobMatcher};
use mantissa_kernels::state::StateFormats;
use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::loss_scaling::{LossScaling, LossScalingError};
use crate::names;
use crate::site::{Pass, Role, Site, SiteKind, SiteNumerics};
use crate::storage::{StorageError, StorageTable};
use crate::toml_text::{self, TomlFault};

/// The version of the recipe file this crate reads.
pub const SCHEMA: u32 = 1;

/// A rule set a person wrote, or a preset.
///
/// ```
/// use mantissa_plan::{Recipe, Site, SiteKind};
///
/// let recipe = Recipe::from_toml(r#"
///     schema = 1
///     name = "mine"
///
///     [[rules]]                     # the head stays in bf16 ...
///     sites = "decoder"
///     lhs = "bf16"
///     rhs = "bf16"
///     grad = "bf16"
///
///     [[rules]]                     # ... and everything else takes 8 bits
///     sites = "*"
///     lhs = "e4m3"
///     rhs = "e4m3"
///     grad = "e5m2"
///     grad_rhs = { grad = "e5m2/tensor/stochastic" }
/// "#)?;
/// let numerics = recipe.assign(&[
///     Site::new("encoder.query", SiteKind::Linear),
///     Site::new("decoder", SiteKind::Linear),
/// ])?;
/// assert_eq!(numerics[0].grad_rhs.right.to_string(), "e5m2/tensor/stochastic");
/// assert_eq!(numerics[1].forward.left.to_string(), "bf16");
/// # Ok::<(), mantissa_plan::RecipeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The version of the file format, [`SCHEMA`].
    pub schema: u32,
    /// A short name.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// How the loss is scaled.
    #[serde(default)]
    pub loss_scaling: LossScaling,
    /// The formats of the optimizer's moments, f32 where nothing is said; small parameters keep f32.
    #[serde(default, skip_serializing_if = "StateFormats::is_default")]
    pub states: StateFormats,
    /// How weights and their gradients lie in memory.
    #[serde(default, skip_serializing_if = "StorageTable::is_default")]
    pub storage: StorageTable,
    /// The rules; the first that matches a site decides it. A site that no rule matches stays in f32.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Which sites a rule is for, and the numerics of their operands.
///
/// `lhs`, `rhs` and `grad` hold for every pass; a pass may name its operands anew. What is not named stays in f32.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A glob over site names; `*` also spans dots.
    pub sites: String,
    /// Only sites of this kind. Without it the rule is for all products, and not for embeddings, which multiply nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SiteKind>,
    /// Only the first, the last, or these two of the sites that match, in forward order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// The rule may match no site without that being an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The numerics of `lhs` in every pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lhs: Option<Numerics>,
    /// The numerics of `rhs` in every pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rhs: Option<Numerics>,
    /// The numerics of `grad` in every pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad: Option<Numerics>,
    /// The forward pass's own numerics.
    #[serde(default, skip_serializing_if = "OperandNumerics::is_empty")]
    pub forward: OperandNumerics,
    /// The numerics of the pass that computes the gradient of `lhs`.
    #[serde(default, skip_serializing_if = "OperandNumerics::is_empty")]
    pub grad_lhs: OperandNumerics,
    /// The numerics of the pass that computes the gradient of `rhs`.
    #[serde(default, skip_serializing_if = "OperandNumerics::is_empty")]
    pub grad_rhs: OperandNumerics,
}

/// Which of the matching sites a rule is for, in forward order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    /// The first.
    First,
    /// The last.
    Last,
    /// The first and the last.
    Ends,
}

impl Only {
    /// These of `matched`.
    fn of(self, matched: Vec<usize>) -> Vec<usize> {
        let ends = [matched.first().copied(), matched.last().copied()];
        let wanted = match self {
            Only::First => &ends[..1],
            Only::Last => &ends[1..],
            Only::Ends if matched.len() > 1 => &ends[..],
            Only::Ends => &ends[..1],
        };
        wanted.iter().flatten().copied().collect()
    }
}

/// Numerics by operand, as far as they are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandNumerics {
    /// Of `lhs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lhs: Option<Numerics>,
    /// Of `rhs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rhs: Option<Numerics>,
    /// Of `grad`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad: Option<Numerics>,
}

impl OperandNumerics {
    /// The numerics named for this operand.
    pub fn of(&self, role: Role) -> Option<Numerics> {
        match role {
            Role::Lhs => self.lhs,
            Role::Rhs => self.rhs,
            Role::Grad => self.grad,
        }
    }

    fn is_empty(&self) -> bool {
        *self == OperandNumerics::default()
    }
}

/// Why a recipe cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// No preset has this name.
    #[error("there is no recipe `{name}`{hint} The recipes are {known}.")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
        /// All presets.
        known: String,
    },
    /// The text is not a recipe.
    #[error("the recipe cannot be read: {0}")]
    Toml(#[from] TomlFault),
    /// A rule's glob is not one.
    #[error("rule {rule} of recipe `{recipe}`: `{sites}` is not a glob: {fault}")]
    Glob {
        /// The recipe.
        recipe: String,
        /// The rule's number, from 1.
        rule: usize,
        /// Its glob.
        sites: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A pass names an operand it does not have.
    #[error("rule {rule} of recipe `{recipe}`: the pass {pass} has no operand {role}; its operands are {} and {}", .pass.operands()[0], .pass.operands()[1])]
    WrongOperand {
        /// The recipe.
        recipe: String,
        /// The rule's number, from 1.
        rule: usize,
        /// The pass.
        pass: Pass,
        /// The operand it does not have.
        role: Role,
    },
    /// The loss scaling's settings contradict each other.
    #[error("recipe `{recipe}`: {source}")]
    LossScaling {
        /// The recipe.
        recipe: String,
        /// What is wrong.
        source: LossScalingError,
    },
    /// The storage table cannot be used.
    #[error("recipe `{recipe}`: {source}")]
    Storage {
        /// The recipe.
        recipe: String,
        /// What is wrong.
        source: StorageError,
    },
    /// A rule decides no site.
    #[error(
        "rule {rule} of recipe `{recipe}` (`{sites}`{kind}) {cause}; correct it, or write `optional = true` if that is meant"
    )]
    MatchesNothing {
        /// The recipe.
        recipe: String,
        /// The rule's number, from 1.
        rule: usize,
        /// Its glob.
        sites: String,
        /// Its kind, in words.
        kind: String,
        /// That it matches nothing, and the nearest names; or which earlier rule took its sites.
        cause: String,
    },
    /// Two sites have the same name.
    #[error("the model has two sites named `{0}`; rename one of the modules")]
    DuplicateSite(String),
}

impl Recipe {
    /// A recipe of these rules alone.
    pub fn of_rules(name: impl Into<String>, rules: Vec<Rule>) -> Recipe {
        Recipe {
            schema: SCHEMA,
            name: name.into(),
            description: String::new(),
            loss_scaling: LossScaling::default(),
            states: StateFormats::default(),
            storage: StorageTable::default(),
            rules,
        }
    }

    /// Reads a recipe from TOML.
    pub fn from_toml(text: &str) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = toml_text::parse(text, SCHEMA)?;
        let storage = recipe.storage.check();
        storage.map_err(|source| recipe.storage_error(source))?;
        for (index, rule) in recipe.rules.iter().enumerate() {
            rule.glob()
                .map_err(|fault| recipe.glob_error(index, &fault))?;
            if let Some((pass, role)) = rule.wrong_operand() {
                return Err(RecipeError::WrongOperand {
                    recipe: recipe.name.clone(),
                    rule: index + 1,
                    pass,
                    role,
                });
            }
        }
        Ok(recipe)
    }

    /// Prints the recipe as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The numerics of every site, in the order of `sites`: forward order, for rules that are for the first or the last.
    ///
    /// Every rule that is not optional must decide at least one site: a rule that silently matches nothing, perhaps
    /// because a module was renamed, would train in numerics nobody asked for.
    pub fn assign(&self, sites: &[Site]) -> Result<Vec<SiteNumerics>, RecipeError> {
        let mut seen = HashSet::new();
        if let Some(twice) = sites.iter().find(|site| !seen.insert(site.name.as_str())) {
            return Err(RecipeError::DuplicateSite(twice.name.clone()));
        }
        let mut decided: Vec<Option<usize>> = vec![None; sites.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            let glob = rule
                .glob()
                .map_err(|fault| self.glob_error(index, &fault))?;
            let mut matched: Vec<usize> = (0..sites.len())
                .filter(|&s| rule.is_for(&glob, &sites[s]))
                .collect();
            if let Some(only) = rule.only {
                matched = only.of(matched);
            }
            let open: Vec<usize> = matched
                .iter()
                .copied()
                .filter(|&s| decided[s].is_none())
                .collect();
            if open.is_empty() && !rule.optional {
                let earlier = matched.first().and_then(|&s| decided[s]);
                return Err(self.matches_nothing(index, earlier, sites));
            }
            for site in open {
                decided[site] = Some(index);
            }
        }
        Ok(decided
            .into_iter()
            .map(|rule| rule.map_or(SiteNumerics::FP32, |index| self.rules[index].numerics()))
            .collect())
    }

    pub(crate) fn storage_error(&self, source: StorageError) -> RecipeError {
        RecipeError::Storage {
            recipe: self.name.clone(),
            source,
        }
    }

    fn glob_error(&self, index: usize, fault: &globset::Error) -> RecipeError {
        RecipeError::Glob {
            recipe: self.name.clone(),
            rule: index + 1,
            sites: self.rules[index].sites.clone(),
            fault: fault.kind().to_string(),
        }
    }

    fn matches_nothing(&self, index: usize, earlier: Option<usize>, sites: &[Site]) -> RecipeError {
        let rule = &self.rules[index];
        let of_kind = sites
            .iter()
            .filter(|site| rule.takes(site.kind))
            .map(|site| site.name.as_str());
        let nearest = names::ranked(&rule.sites, of_kind);
        let cause = match earlier {
            Some(earlier) => format!(
                "only matches sites that earlier rules decide, the first of them rule {}",
                earlier + 1
            ),
            None if nearest.is_empty() => "matches no site of the model".to_string(),
            None => format!(
                "matches no site of the model; the nearest names are {}",
                names::listed(&nearest, 3)
            ),
        };
        RecipeError::MatchesNothing {
            recipe: self.name.clone(),
            rule: index + 1,
            sites: rule.sites.clone(),
            kind: rule
                .kind
                .map(|kind| format!(", kind {kind}"))
                .unwrap_or_default(),
            cause,
        }
    }
}

impl Rule {
    /// The numerics the rule gives to a site.
    pub fn numerics(&self) -> SiteNumerics {
        let every_pass = OperandNumerics {
            lhs: self.lhs,
            rhs: self.rhs,
            grad: self.grad,
        };
        let mut numerics = SiteNumerics::FP32;
        for pass in Pass::ALL {
            let named = |role| {
                self.pass(pass)
                    .of(role)
                    .or(every_pass.of(role))
                    .unwrap_or(Numerics::FP32)
            };
            let [left, right] = pass.operands();
            numerics.pass_mut(pass).left = named(left);
            numerics.pass_mut(pass).right = named(right);
        }
        numerics
    }

    fn pass(&self, pass: Pass) -> &OperandNumerics {
        match pass {
            Pass::Forward => &self.forward,
            Pass::GradLhs => &self.grad_lhs,
            Pass::GradRhs => &self.grad_rhs,
        }
    }

    fn wrong_operand(&self) -> Option<(Pass, Role)> {
        let pairs = Pass::ALL
            .into_iter()
            .flat_map(|pass| [Role::Lhs, Role::Rhs, Role::Grad].map(|role| (pass, role)));
        pairs.into_iter().find(|&(pass, role)| {
            !pass.operands().contains(&role) && self.pass(pass).of(role).is_some()
        })
    }

    fn takes(&self, kind: SiteKind) -> bool {
        self.kind.map_or(kind.is_product(), |wanted| wanted == kind)
    }

    fn glob(&self) -> Result<GlobMatcher, globset::Error> {
        Ok(Glob::new(&self.sites)?.compile_matcher())
    }

    fn is_for(&self, glob: &GlobMatcher, site: &Site) -> bool {
        self.takes(site.kind) && glob.is_match(&site.name)
    }
}
