//! What a run is: everything that decides its numbers, as a TOML file.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use mantissa::optimizer::{ParameterGroup, ParameterGroups, StateFormats};
use mantissa::parallel::Wire;
use mantissa::plan::{LossScaling, Rule, StorageTable, guard};
use mantissa_zoo::{BatchShape, BertConfig};
use serde::{Deserialize, Serialize};

use super::rehearsal::Injection;
use super::schedule::Schedule;
use crate::error::Error;

/// The version of the configuration file.
const SCHEMA: u32 = 1;

/// The configuration of a run, `config.toml` in its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The version of this file's format.
    pub schema: u32,
    /// What is learnt from.
    pub data: DataConfig,
    /// What learns.
    pub model: ModelConfig,
    /// How it learns.
    pub training: TrainingConfig,
    /// Which parameters learn in their own way.
    pub parameters: ParameterConfig,
    /// In which numerics.
    pub numerics: NumericsConfig,
    /// How the numerics are watched, and when they change.
    pub guard: guard::Settings,
    /// When it is saved.
    pub checkpoints: CheckpointConfig,
    /// Whether its operands are measured.
    pub profile: ProfileConfig,
}

/// What is learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `text:FILE` or `hidden-markov`.
    pub source: DataSource,
    /// A text file for validation, instead of the last tenth of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// What a token of a text is.
    pub tokenizer: TokenizerKind,
    /// Size of the vocabulary of a byte-pair tokenizer, special tokens included.
    pub vocab_size: usize,
    /// Batches in the evaluation set.
    pub evaluation_batches: usize,
}

/// Where sequences come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataSource {
    /// A UTF-8 text file.
    Text(PathBuf),
    /// The synthetic source whose best reachable loss is known.
    HiddenMarkov,
}

impl FromStr for DataSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("text", path)) if !path.is_empty() => Ok(Self::Text(path.into())),
            None if text == "hidden-markov" => Ok(Self::HiddenMarkov),
            _ => Err(format!(
                "`{text}` is no data source; write text:FILE for a text file, or hidden-markov"
            )),
        }
    }
}

impl TryFrom<String> for DataSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DataSource> for String {
    fn from(source: DataSource) -> Self {
        match source {
            DataSource::Text(path) => format!("text:{}", path.display()),
            DataSource::HiddenMarkov => "hidden-markov".to_owned(),
        }
    }
}

/// What a token of a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// A piece of text, by byte-pair encoding trained on the file
    #[default]
    Bpe,
    /// A byte
    Bytes,
}

/// The sizes of the BERT: a preset and what differs from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The preset.
    pub preset: ModelPreset,
    /// Tokens a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
    /// Width of every token's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_model: Option<usize>,
    /// Width inside the feed-forward network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d_ff: Option<usize>,
    /// Attention heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_heads: Option<usize>,
    /// Encoder layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layers: Option<usize>,
    /// Share of activations dropped in training.
    pub dropout: f64,
}

/// The sizes that have a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModelPreset {
    /// 2 layers, width 128, 2 heads, feed-forward 512, sequences of 64
    #[default]
    BertTiny,
    /// 4 layers, width 256, 4 heads, feed-forward 1024, sequences of 128
    BertMini,
}

/// How it learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Training steps.
    pub steps: u64,
    /// Sequences a step.
    pub batch_size: usize,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Applied steps of linear warm-up; a twentieth of the steps where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f32,
    /// Largest global L2 norm of the gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// Seed of the weights, the data order and stochastic rounding.
    pub seed: u64,
    /// Skipped steps in a row after which training stops with a diagnosis; 100 where it is not given.
    pub max_skips: u64,
    /// In which format gradients travel between ranks; f32 where it is not given.
    pub wire: Wire,
    /// Faults on purpose, to rehearse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
}

/// Which parameters learn in their own way: `[[parameters.groups]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterConfig {
    /// Parameters of fewer elements have f32 states, unless their group names formats.
    pub exempt_below: usize,
    /// The first group whose glob matches a parameter's path decides its states, learning rate and weight decay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// In which numerics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NumericsConfig {
    /// The name of a recipe, or a recipe file ending in `.toml`; `fp32` where neither is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// A plan file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PathBuf>,
    /// The rules of a recipe that has no file of its own: `rules = [{ sites = "*", rhs = "int8/tensor" }]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// How the loss is scaled, in place of what the recipe or the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scaling: Option<LossScaling>,
    /// How weights and their gradients are stored, in place of what the recipe or the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageTable>,
    /// The formats of the optimizer's moments, in place of what the recipe or the plan says: one for both, or the first's
    /// and the second's with a comma between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<StateFormats>,
    /// Whether the numerics are watched while training; a plan's are and a recipe's are not where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<bool>,
}

/// When it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints.
    pub every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
}

/// Whether its operands are measured, into `profile.safetensors` in its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileConfig {
    /// Every how many steps; never where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            data: DataConfig::default(),
            model: ModelConfig::default(),
            training: TrainingConfig::default(),
            parameters: ParameterConfig::default(),
            numerics: NumericsConfig::default(),
            guard: guard::Settings::default(),
            checkpoints: CheckpointConfig::default(),
            profile: ProfileConfig::default(),
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: DataSource::HiddenMarkov,
            validation: None,
            tokenizer: TokenizerKind::Bpe,
            vocab_size: 1024,
            evaluation_batches: 8,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            preset: ModelPreset::BertTiny,
            seq_len: None,
            d_model: None,
            d_ff: None,
            n_heads: None,
            n_layers: None,
            dropout: 0.0,
        }
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 32,
            learning_rate: 2e-3,
            warmup_steps: None,
            weight_decay: 0.01,
            max_norm: None,
            seed: 0,
            max_skips: 100,
            wire: Wire::F32,
            inject: Vec::new(),
        }
    }
}

impl Default for ParameterConfig {
    fn default() -> Self {
        let ParameterGroups {
            exempt_below,
            groups,
            ..
        } = ParameterGroups::default();
        Self {
            exempt_below,
            groups,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            every: 200,
            keep: 2,
        }
    }
}

impl NumericsConfig {
    /// How many of recipe, plan and rules are given.
    fn sources(&self) -> usize {
        [
            self.recipe.is_some(),
            self.plan.is_some(),
            !self.rules.is_empty(),
        ]
        .into_iter()
        .filter(|&given| given)
        .count()
    }

    /// Whether recipe, plan or rules are given.
    pub fn names_any(&self) -> bool {
        self.sources() > 0
    }
}

impl RunConfig {
    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| Error::Config {
            path: path.to_owned(),
            problem: one_line(&error, &text),
        })?;
        if config.schema != SCHEMA {
            return Err(Error::Config {
                path: path.to_owned(),
                problem: format!(
                    "it has schema {}, this program reads schema {SCHEMA}",
                    config.schema
                ),
            });
        }
        Ok(config)
    }

    /// Makes the paths of data, plan and recipe file absolute, so that the run can be resumed from any folder; those that
    /// are not are in `folder`.
    pub fn resolve_paths(&mut self, folder: &Path) -> Result<(), Error> {
        let absolute = |path: &Path| {
            std::path::absolute(folder.join(path)).map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })
        };
        let text = match &mut self.data.source {
            DataSource::Text(path) => Some(path),
            DataSource::HiddenMarkov => None,
        };
        let paths = [
            text,
            self.data.validation.as_mut(),
            self.numerics.plan.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            *path = absolute(path)?;
        }
        if let Some(recipe) = &mut self.numerics.recipe
            && recipe.ends_with(".toml")
        {
            *recipe = absolute(Path::new(recipe))?.display().to_string();
        }
        Ok(())
    }

    /// What every rank of a run must have the same of: all but the paths of files, which may lie elsewhere on another
    /// machine.
    pub fn without_paths(&self) -> Self {
        let mut config = self.clone();
        if let DataSource::Text(path) = &mut config.data.source {
            *path = PathBuf::from("…");
        }
        for path in [&mut config.data.validation, &mut config.numerics.plan] {
            *path = path.take().map(|_| PathBuf::from("…"));
        }
        config
    }

    /// The text of the configuration file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration is representable in TOML")
    }

    /// Refuses what cannot be trained.
    pub fn check(&self) -> Result<(), Error> {
        let training = &self.training;
        let problem = if training.steps == 0 {
            "steps must be at least 1"
        } else if !(training.learning_rate.is_finite() && training.learning_rate > 0.0) {
            "learning_rate must be a positive number"
        } else if training
            .max_norm
            .is_some_and(|norm| norm.is_nan() || norm <= 0.0)
        {
            "max_norm must be a positive number"
        } else if training.max_skips == 0 {
            "max_skips must be at least 1"
        } else if self.checkpoints.every == 0 || self.checkpoints.keep == 0 {
            "checkpoints need `every` and `keep` of at least 1"
        } else if self.profile.every == Some(0) {
            "a profile needs `every` of at least 1"
        } else if self.data.evaluation_batches == 0 {
            "evaluation_batches must be at least 1"
        } else if self.numerics.sources() > 1 {
            "a run has a recipe, a plan or rules of its own, not more than one of them"
        } else {
            return self.guard.check().map_err(Error::Usage);
        };
        Err(Error::Usage(problem.to_owned()))
    }

    /// Whether the numerics are watched while training.
    pub fn is_guarded(&self) -> bool {
        let numerics = &self.numerics;
        numerics.guard.unwrap_or(numerics.plan.is_some())
    }

    /// The sizes of the network for a vocabulary.
    pub fn bert(&self, vocab_size: usize) -> BertConfig {
        let model = &self.model;
        let preset = match model.preset {
            ModelPreset::BertTiny => BertConfig::bert_tiny(vocab_size),
            ModelPreset::BertMini => BertConfig::bert_mini(vocab_size),
        };
        BertConfig {
            seq_len: model.seq_len.unwrap_or(preset.seq_len),
            d_model: model.d_model.unwrap_or(preset.d_model),
            d_ff: model.d_ff.unwrap_or(preset.d_ff),
            n_heads: model.n_heads.unwrap_or(preset.n_heads),
            n_layers: model.n_layers.unwrap_or(preset.n_layers),
            dropout: model.dropout,
            ..preset
        }
    }

    /// The shape of every batch.
    pub fn batch_shape(&self) -> BatchShape {
        BatchShape {
            batch_size: self.training.batch_size,
            seq_len: self.bert(1).seq_len,
        }
    }

    /// The learning rate.
    pub fn schedule(&self) -> Schedule {
        let training = &self.training;
        Schedule {
            peak: training.learning_rate,
            warmup_steps: training.warmup_steps.unwrap_or(training.steps.div_ceil(20)),
            total_steps: training.steps,
        }
    }
}

/// A TOML error in one line, where the original draws the place.
pub fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', " ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", 1 + before.matches('\n').count()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_its_file() {
        let mut config = RunConfig::default();
        config.data.source = "text:a b.txt".parse().unwrap();
        config.model.d_model = Some(64);
        config.numerics.recipe = Some("int8".to_owned());
        config.numerics.loss_scaling = Some("1024".parse().unwrap());
        config.numerics.storage = Some(StorageTable {
            parameters: "bf16/stochastic".parse().unwrap(),
            ..StorageTable::default()
        });
        config.numerics.states = Some("e4m3/tensor,fp16/tensor".parse().unwrap());
        config.numerics.rules = vec![Rule {
            sites: "*".to_owned(),
            rhs: Some("int8/tensor".parse().unwrap()),
            ..Rule::default()
        }];
        config.profile.every = Some(50);
        config.parameters.groups.push(ParameterGroup {
            states: Some("fp32".parse().unwrap()),
            weight_decay: Some(0.0),
            ..ParameterGroup::of("*embedding*")
        });
        assert_eq!(
            toml::from_str::<RunConfig>(&config.to_toml()).unwrap(),
            config
        );
    }

    #[test]
    fn what_a_file_leaves_out_is_the_default() {
        let config: RunConfig = toml::from_str("[training]\nsteps = 7").unwrap();
        assert_eq!(config.training.steps, 7);
        assert_eq!(
            config.training.batch_size,
            TrainingConfig::default().batch_size
        );
    }

    #[test]
    fn unknown_keys_and_sources_are_errors() {
        let error = toml::from_str::<RunConfig>("[training]\nstep = 7").unwrap_err();
        assert!(error.to_string().contains("step"), "{error}");
        assert!("csv:x".parse::<DataSource>().is_err());
        assert!("text:".parse::<DataSource>().is_err());
    }
}
