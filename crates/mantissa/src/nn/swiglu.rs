use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Initializer, LinearLayout};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::Linear;

/// Configuration of a [`SwiGlu`] layer, as [`burn::nn::SwiGluConfig`].
#[derive(Config, Debug)]
pub struct SwiGluConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// Whether the linear layers have biases. Default: false
    #[config(default = false)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// The layout in which the weights are stored. Default: row major
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

impl SwiGluConfig {
    /// Initializes a [`SwiGlu`] layer with the parameters that Burn's would get.
    pub fn init(&self, device: &Device) -> SwiGlu {
        burn::nn::SwiGluConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .with_layout(self.layout)
            .init(device)
            .into()
    }
}

/// `silu(I W + b) * (I V + c)`, two sites: [`burn::nn::SwiGlu`] whose products follow the current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SwiGlu {
    /// The layer whose output opens the gate.
    pub linear_inner: Linear,
    /// The layer whose output passes through it.
    pub linear_outer: Linear,
}

impl From<burn::nn::SwiGlu> for SwiGlu {
    /// Keeps the parameters and their ids.
    fn from(swiglu: burn::nn::SwiGlu) -> Self {
        Self {
            linear_inner: swiglu.linear_inner.into(),
            linear_outer: swiglu.linear_outer.into(),
        }
    }
}

impl ModuleDisplay for SwiGlu {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, d_output] = self.linear_inner.weight.shape().dims();
        content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.linear_inner.bias.is_some())
            .optional()
    }
}

impl SwiGlu {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[…, d_input] -> […, d_output]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let gate = silu(self.linear_inner.forward(input.clone()));
        gate * self.linear_outer.forward(input)
    }
}
