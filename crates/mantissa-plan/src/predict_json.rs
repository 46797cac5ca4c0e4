//! A prediction as JSON.

use std::collections::BTreeMap;

use mantissa_quant::Numerics;
use serde::Serialize;

use crate::predict::{PassPrediction, Prediction};
use crate::quality::QualityLoss;
use crate::site::{Pass, Role};

/// A prediction as JSON.
#[derive(Serialize)]
pub struct PredictionJson {
    /// The cost in units of f32.
    pub cost: f64,
    /// The predicted quality loss.
    pub quality_loss: LossJson,
    /// The loss scale that gradients were evaluated with.
    pub loss_scale: f64,
    /// Each site with its passes, in forward order.
    pub sites: Vec<SiteJson>,
}

/// A predicted quality loss as JSON; what is not finite is `null`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LossJson {
    /// The estimate.
    pub estimate: f64,
    /// The lower end of its 95 % confidence interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// A site's part of a prediction as JSON.
#[derive(Serialize)]
pub struct SiteJson {
    /// The site.
    pub site: String,
    /// The predicted quality loss of its passes together.
    pub quality_loss: LossJson,
    /// Its passes.
    pub passes: Vec<PassJson>,
}

/// A pass's part of a prediction as JSON.
#[derive(Serialize)]
pub struct PassJson {
    /// The pass.
    pub pass: Pass,
    /// The operands' numerics.
    pub numerics: BTreeMap<Role, Numerics>,
    /// The cost in units of the product in f32.
    pub cost: f64,
    /// The product's share of what all products cost in f32.
    pub cost_share: f64,
    /// The predicted quality loss; absent where the site's gradients were not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_loss: Option<LossJson>,
    /// Median backward error.
    pub backward_error: Option<f64>,
}

impl From<QualityLoss> for LossJson {
    fn from(loss: QualityLoss) -> Self {
        LossJson {
            estimate: loss.estimate(),
            low: loss.low(),
            high: loss.high(),
        }
    }
}

impl From<&Prediction> for PredictionJson {
    fn from(prediction: &Prediction) -> Self {
        let of_one_site = |a: &PassPrediction, b: &PassPrediction| a.site == b.site;
        let sites = prediction.passes.chunk_by(of_one_site).map(|passes| {
            let losses = passes.iter().filter_map(|pass| pass.quality_loss);
            SiteJson {
                site: passes[0].site.clone(),
                quality_loss: losses
                    .fold(QualityLoss::ZERO, |sum, loss| sum.plus(&loss))
                    .into(),
                passes: passes.iter().map(PassJson::from).collect(),
            }
        });
        PredictionJson {
            cost: prediction.cost,
            quality_loss: prediction.quality_loss.into(),
            loss_scale: prediction.loss_scale,
            sites: sites.collect(),
        }
    }
}

impl From<&PassPrediction> for PassJson {
    fn from(prediction: &PassPrediction) -> Self {
        PassJson {
            pass: prediction.pass,
            numerics: prediction.numerics.by_role(prediction.pass),
            cost: prediction.cost,
            cost_share: prediction.cost_share,
            quality_loss: prediction.quality_loss.map(LossJson::from),
            backward_error: prediction.error.product.map(|product| product.median),
        }
    }
}
