use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, PaddingConfig3d};
use burn::tensor::module::conv3d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::convolve::{Parameters, convolution};
use super::padding::pairs_3d;

/// Configuration of a [`Conv3d`] layer, as [`burn::nn::conv::Conv3dConfig`].
#[derive(Config, Debug)]
pub struct Conv3dConfig {
    /// The number of input and output channels.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 3],
    /// The elements from one window to the next. Default: 1
    #[config(default = "[1, 1, 1]")]
    pub stride: [usize; 3],
    /// The elements from one tap of the kernel to the next. Default: 1
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// The groups of channels that are convolved on their own. Default: 1
    #[config(default = "1")]
    pub groups: usize,
    /// The padding. Default: none
    #[config(default = "PaddingConfig3d::Valid")]
    pub padding: PaddingConfig3d,
    /// Whether a bias is added. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv3dConfig {
    /// Initializes a [`Conv3d`] layer with the parameters that Burn's layer would get.
    ///
    /// # Panics
    /// If channels are not divisible by the groups, or `Same` padding meets a kernel of an even size.
    pub fn init(&self, device: &Device) -> Conv3d {
        burn::nn::conv::Conv3dConfig::new(self.channels, self.kernel_size)
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

/// A convolution over three axes, one site: [`burn::nn::conv::Conv3d`] that follows the current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv3d {
    /// Tensor of shape `[channels_out, channels_in / groups, kernel_size_1, kernel_size_2, kernel_size_3]`.
    pub weight: Param<Tensor<5>>,
    /// Vector of size `channels_out`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The elements from one window to the next.
    pub stride: [usize; 3],
    /// The size of the kernel.
    pub kernel_size: [usize; 3],
    /// The elements from one tap of the kernel to the next.
    pub dilation: [usize; 3],
    /// The groups of channels that are convolved on their own.
    pub groups: usize,
    /// The padding; as in Burn, not part of the record.
    #[module(skip)]
    pub padding: PaddingConfig3d,
}

impl From<burn::nn::conv::Conv3d> for Conv3d {
    /// Keeps the parameters and their ids.
    fn from(conv: burn::nn::conv::Conv3d) -> Self {
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

impl ModuleDisplay for Conv3d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [channels_out, group_channels, _, _, _] = self.weight.shape().dims();
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

impl Conv3d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch_size, channels_in, depth_in, height_in, width_in] -> [batch_size, channels_out, depth_out, height_out, width_out]`
    ///
    /// # Panics
    /// If `input` has not `channels_in` channels, or is smaller than the kernel.
    pub fn forward(&self, input: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = input.dims();
        let [kernel, stride, dilation] = [self.kernel_size, self.stride, self.dilation];
        let padding = pairs_3d(&self.padding, [depth, height, width], kernel, stride);
        let options = ConvOptions::new_with_padding(stride, padding, dilation, self.groups);
        let parameters = Parameters {
            weight: &self.weight,
            bias: &self.bias,
        };
        convolution(input, parameters, options, conv3d)
    }
}
