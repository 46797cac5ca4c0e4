use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, LinearLayout};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

use crate::product::{observe, weight_product};
use crate::session::SiteUse;
use crate::sites::SiteKey;
use crate::storage::read;

/// Configuration of a [`Linear`] layer, as [`burn::nn::LinearConfig`].
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// Whether a bias is added. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// The layout in which the weight is stored. Default: row major
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

impl LinearConfig {
    /// Initializes a [`Linear`] layer with the parameters that Burn's layer would get.
    pub fn init(&self, device: &Device) -> Linear {
        burn::nn::LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .with_layout(self.layout)
            .init(device)
            .into()
    }
}

/// `O = I W + b`, one site: [`burn::nn::Linear`] that follows the current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Linear {
    /// Matrix of shape `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// Vector of size `d_output`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl From<burn::nn::Linear> for Linear {
    /// Keeps the parameters and their ids.
    fn from(linear: burn::nn::Linear) -> Self {
        Self {
            weight: linear.weight,
            bias: linear.bias,
        }
    }
}

impl ModuleDisplay for Linear {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, d_output] = self.weight.shape().dims();
        content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.bias.is_some())
            .optional()
    }
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[…, d_input] -> […, d_output]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let Some(site) = SiteUse::of_key(SiteKey::Weight(self.weight.id)) else {
            return linear(input, read(weight), bias);
        };

        let [d_input, d_output] = weight.dims();
        let mut shape = input.dims();
        let rows = shape[..D - 1].iter().product();
        shape[D - 1] = d_output;
        let folded = |tensor: Tensor<D>| tensor.reshape([rows, d_input]);
        if !site.is_burns() {
            return weight_product(site, folded(input), weight, bias).reshape(shape);
        }
        let weight = read(weight);
        let output = linear(input.clone(), weight.clone(), bias).reshape([rows, d_output]);
        if site.is_profiled() {
            observe(site, folded(input), weight, output)
        } else {
            output
        }
        .reshape(shape)
    }
}
