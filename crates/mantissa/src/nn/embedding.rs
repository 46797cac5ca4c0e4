use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::Initializer;
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor};

use crate::fused;
use crate::product::round_table;
use crate::session::{self, SiteUse};
use crate::sites::SiteKey;
use crate::storage::read;

/// Configuration of an [`Embedding`] layer, as [`burn::nn::EmbeddingConfig`].
#[derive(Config, Debug)]
pub struct EmbeddingConfig {
    /// The number of embedding vectors.
    pub n_embedding: usize,
    /// The size of each vector.
    pub d_model: usize,
    /// How the table is initialized. Default: standard normal
    #[config(default = "Initializer::Normal{mean:0.0, std:1.0}")]
    pub initializer: Initializer,
}

impl EmbeddingConfig {
    /// Initializes an [`Embedding`] with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> Embedding {
        burn::nn::EmbeddingConfig::new(self.n_embedding, self.d_model)
            .with_initializer(self.initializer.clone())
            .init(device)
            .into()
    }
}

/// A lookup table, one site: [`burn::nn::Embedding`] whose table is read in the forward right-hand numerics of the
/// current autocast, with the gradient going straight to the master table.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Embedding {
    /// Table of shape `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl From<burn::nn::Embedding> for Embedding {
    /// Keeps the parameters and their ids.
    fn from(embedding: burn::nn::Embedding) -> Self {
        Self {
            weight: embedding.weight,
        }
    }
}

impl ModuleDisplay for Embedding {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [n_embedding, d_model] = self.weight.shape().dims();
        content
            .add("n_embedding", &n_embedding)
            .add("d_model", &d_model)
            .optional()
    }
}

impl Embedding {
    /// Looks up the vectors of `input`.
    ///
    /// # Shapes
    /// `[batch_size, seq_length] -> [batch_size, seq_length, d_model]`
    ///
    /// # Panics
    /// If an id is no row of the table.
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        let table = self.weight.val();
        let (table, site) = match SiteUse::of_key(SiteKey::Weight(self.weight.id)) {
            Some(site) if !site.is_fp32() => (round_table(site, table), None),
            site => (table, site),
        };
        if session::is_fused() {
            fused::embedding(table, site, input)
        } else {
            embedding(read(table), input)
        }
    }
}
