//! Finding the products of a model by walking its module tree.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use mantissa_plan::{Site, SiteKind};

/// What identifies a product at run time: the parameter its module owns, and which of the module's products it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SiteKey {
    /// A product with this weight.
    Weight(ParamId),
    /// The `scores` product of the attention whose query weight this is.
    Scores(ParamId),
    /// The `context` product of the attention whose query weight this is.
    Context(ParamId),
}

/// The sites of `model`, one for each product its `mantissa::nn` modules compute, in forward order.
///
/// A site is named by the path of its module (`encoder.layers.0.mha.query`); attention adds `….scores` and
/// `….context`. Weights that two modules share make one site, named after the first.
///
/// ```
/// # use burn::tensor::Device;
/// let mha = mantissa::nn::attention::MultiHeadAttentionConfig::new(8, 2).init(&Device::flex());
/// let names: Vec<_> = mantissa::sites(&mha).into_iter().map(|s| s.name).collect();
/// assert_eq!(names, ["query", "key", "value", "scores", "context", "output"]);
/// ```
pub fn sites<M: Module>(model: &M) -> Vec<Site> {
    keyed_sites(model)
        .into_iter()
        .map(|(_, site)| site)
        .collect()
}

pub(crate) fn keyed_sites<M: Module>(model: &M) -> Vec<(SiteKey, Site)> {
    let mut finder = SiteFinder::default();
    model.visit(&mut finder);
    finder.found
}

/// Burn calls `enter_module(field, container)` with the type of the struct that *holds* the field, so the innermost
/// container names the module that owns a parameter.
#[derive(Default)]
struct SiteFinder {
    path: Vec<(String, String)>,
    query: Option<ParamId>,
    found: Vec<(SiteKey, Site)>,
}

impl SiteFinder {
    fn push(&mut self, key: SiteKey, name: String, kind: SiteKind) {
        if !self.found.iter().any(|(known, _)| *known == key) {
            self.found.push((key, Site { name, kind }));
        }
    }

    /// The dotted path without its last `skip` fields; the model itself, where nothing is left, is called `model`.
    fn name(&self, skip: usize) -> String {
        let fields: Vec<&str> = self.path[..self.path.len() - skip]
            .iter()
            .map(|(field, _)| field.as_str())
            .collect();
        if fields.is_empty() {
            "model".to_string()
        } else {
            fields.join(".")
        }
    }

    fn within_attention(&self) -> Option<&str> {
        let (field, container) = self.path.iter().nth_back(1)?;
        let is_attention = ["Struct:MultiHeadAttention", "Struct:CrossAttention"];
        is_attention
            .contains(&container.as_str())
            .then_some(field.as_str())
    }

    fn attention_product(&self, product: &str) -> String {
        match self.path.len() {
            0..=2 => product.to_string(),
            _ => format!("{}.{product}", self.name(2)),
        }
    }
}

impl ModuleVisitor for SiteFinder {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((field, container)) = self.path.last() else {
            return;
        };
        if field != "weight" {
            return;
        }
        match container.as_str() {
            "Struct:Linear" => {
                match self.within_attention() {
                    Some("query") => self.query = Some(param.id),
                    Some("output") => {
                        if let Some(query) = self.query.take() {
                            let scores = self.attention_product("scores");
                            let context = self.attention_product("context");
                            self.push(SiteKey::Scores(query), scores, SiteKind::Matmul);
                            self.push(SiteKey::Context(query), context, SiteKind::Matmul);
                        }
                    }
                    _ => {}
                }
                let name = self.name(1);
                self.push(SiteKey::Weight(param.id), name, SiteKind::Linear);
            }
            "Struct:Conv1d"
            | "Struct:Conv2d"
            | "Struct:Conv3d"
            | "Struct:ConvTranspose1d"
            | "Struct:ConvTranspose2d"
            | "Struct:ConvTranspose3d" => {
                let name = self.name(1);
                self.push(SiteKey::Weight(param.id), name, SiteKind::Linear);
            }
            "Struct:Embedding" => {
                let name = self.name(1);
                self.push(SiteKey::Weight(param.id), name, SiteKind::Embedding);
            }
            _ => {}
        }
    }
}
