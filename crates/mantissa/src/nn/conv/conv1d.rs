use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, PaddingConfig1d};
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::convolve::{Parameters, convolution};
use super::padding::pairs_1d;

/// Configuration of a [`Conv1d`] layer, as [`burn::nn::conv::Conv1dConfig`].
#[derive(Config, Debug)]
pub struct Conv1dConfig {
    /// The number of input channels.
    pub channels_in: usize,
    /// The number of output channels.
    pub channels_out: usize,
    /// The size of the kernel.
    pub kernel_size: usize,
    /// The elements from one window to the next. Default: 1
    #[config(default = "1")]
    pub stride: usize,
    /// The elements from one tap of the kernel to the next. Default: 1
    #[config(default = "1")]
    pub dilation: usize,
    /// The groups of channels that are convolved on their own. Default: 1
    #[config(default = "1")]
    pub groups: usize,
    /// The padding. `Same` pads the end more where it must. Default: none
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// Whether a bias is added. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv1dConfig {
    /// Initializes a [`Conv1d`] layer with the parameters that Burn's layer would get.
    ///
    /// # Panics
    /// If channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> Conv1d {
        burn::nn::conv::Conv1dConfig::new(self.channels_in, self.channels_out, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding.clone())
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
            .into()
    }
}

/// A convolution over one axis, one site: [`burn::nn::conv::Conv1d`] that follows the current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv1d {
    /// Tensor of shape `[channels_out, channels_in / groups, kernel_size]`.
    pub weight: Param<Tensor<3>>,
    /// Vector of size `channels_out`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The elements from one window to the next.
    pub stride: usize,
    /// The size of the kernel.
    pub kernel_size: usize,
    /// The elements from one tap of the kernel to the next.
    pub dilation: usize,
    /// The groups of channels that are convolved on their own.
    pub groups: usize,
    /// The padding; as in Burn, not part of the record.
    #[module(skip)]
    pub padding: PaddingConfig1d,
}

impl From<burn::nn::conv::Conv1d> for Conv1d {
    /// Keeps the parameters and their ids.
    fn from(conv: burn::nn::conv::Conv1d) -> Self {
        Self {
            weight: conv.weight,
            bias: conv.bias,
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            groups: conv.groups,
            padding: conv.padding,
        }
    }
}

impl ModuleDisplay for Conv1d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [channels_out, group_channels, _] = self.weight.shape().dims();
        content
            .add("ch_in", &(group_channels * self.groups))
            .add("ch_out", &channels_out)
            .add_debug_attribute("stride", &self.stride)
            .add_debug_attribute("kernel_size", &self.kernel_size)
            .add_debug_attribute("dilation", &self.dilation)
            .add("groups", &self.groups)
            .add_debug_attribute("padding", &self.padding)
            .optional()
    }
}

impl Conv1d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch_size, channels_in, length_in] -> [batch_size, channels_out, length_out]`
    ///
    /// # Panics
    /// If `input` has not `channels_in` channels, or is smaller than the kernel.
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let [_, _, length] = input.dims();
        let [kernel, stride, dilation] =
            [self.kernel_size, self.stride, self.dilation].map(|size| [size]);
        let padding = pairs_1d(&self.padding, [length], kernel, stride);
        let options = ConvOptions::new_with_padding(stride, padding, dilation, self.groups);
        let parameters = Parameters {
            weight: &self.weight,
            bias: &self.bias,
        };
        convolution(input, parameters, options, conv1d)
    }
}
