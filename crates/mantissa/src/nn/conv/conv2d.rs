use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::convolve::{Parameters, convolution};
use super::padding::pairs_2d;

/// Configuration of a [`Conv2d`] layer, as [`burn::nn::conv::Conv2dConfig`].
#[derive(Config, Debug)]
pub struct Conv2dConfig {
    /// The number of input and output channels.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 2],
    /// The elements from one window to the next. Default: 1
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// The elements from one tap of the kernel to the next. Default: 1
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// The groups of channels that are convolved on their own. Default: 1
    #[config(default = "1")]
    pub groups: usize,
    /// The padding. `Same` pads the end more where it must. Default: none
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// Whether a bias is added. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv2dConfig {
    /// Initializes a [`Conv2d`] layer with the parameters that Burn's layer would get.
    ///
    /// # Panics
    /// If channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> Conv2d {
        burn::nn::conv::Conv2dConfig::new(self.channels, self.kernel_size)
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

/// A convolution over two axes, one site: [`burn::nn::conv::Conv2d`] that follows the current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv2d {
    /// Tensor of shape `[channels_out, channels_in / groups, kernel_size_1, kernel_size_2]`.
    pub weight: Param<Tensor<4>>,
    /// Vector of size `channels_out`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The elements from one window to the next.
    pub stride: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 2],
    /// The elements from one tap of the kernel to the next.
    pub dilation: [usize; 2],
    /// The groups of channels that are convolved on their own.
    pub groups: usize,
    /// The padding; as in Burn, not part of the record.
    #[module(skip)]
    pub padding: PaddingConfig2d,
}

impl From<burn::nn::conv::Conv2d> for Conv2d {
    /// Keeps the parameters and their ids.
    fn from(conv: burn::nn::conv::Conv2d) -> Self {
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

impl ModuleDisplay for Conv2d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [channels_out, group_channels, _, _] = self.weight.shape().dims();
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

impl Conv2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch_size, channels_in, height_in, width_in] -> [batch_size, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// If `input` has not `channels_in` channels, or is smaller than the kernel.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = input.dims();
        let [kernel, stride, dilation] = [self.kernel_size, self.stride, self.dilation];
        let padding = pairs_2d(&self.padding, [height, width], kernel, stride);
        let options = ConvOptions::new_with_padding(stride, padding, dilation, self.groups);
        let parameters = Parameters {
            weight: &self.weight,
            bias: &self.bias,
        };
        convolution(input, parameters, options, conv2d)
    }
}
