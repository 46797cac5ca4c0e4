use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::Initializer;
use burn::tensor::module::conv_transpose3d;
use burn::tensor::ops::ConvTransposeOptions;
use burn::tensor::{Device, Tensor};

use super::convolve::{Parameters, transposed_convolution};

/// Configuration of a [`ConvTranspose3d`] layer, as [`burn::nn::conv::ConvTranspose3dConfig`].
#[derive(Config, Debug)]
pub struct ConvTranspose3dConfig {
    /// The number of input and output channels.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 3],
    /// The elements from one window of the output to the next. Default: 1
    #[config(default = "[1, 1, 1]")]
    pub stride: [usize; 3],
    /// The elements from one tap of the kernel to the next. Default: 1
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// The groups of channels that are convolved on their own. Default: 1
    #[config(default = "1")]
    pub groups: usize,
    /// The elements that are cut off both ends of the output. Default: 0
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// The elements that are added at the end of the output. Default: 0
    #[config(default = "[0, 0, 0]")]
    pub padding_out: [usize; 3],
    /// Whether a bias is added. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How parameters are initialized. Default: Kaiming uniform with gain `1/sqrt(3)`
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0_f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl ConvTranspose3dConfig {
    /// Initializes a [`ConvTranspose3d`] layer with the parameters that Burn's layer would get.
    ///
    /// # Panics
    /// If channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> ConvTranspose3d {
        burn::nn::conv::ConvTranspose3dConfig::new(self.channels, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding)
            .with_padding_out(self.padding_out)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
            .into()
    }
}

/// A transposed convolution over three axes, one site: [`burn::nn::conv::ConvTranspose3d`] that follows the
/// current autocast.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ConvTranspose3d {
    /// Tensor of shape `[channels_in, channels_out / groups, kernel_size_1, kernel_size_2, kernel_size_3]`.
    pub weight: Param<Tensor<5>>,
    /// Vector of size `channels_out`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The elements from one window of the output to the next.
    pub stride: [usize; 3],
    /// The size of the kernel.
    pub kernel_size: [usize; 3],
    /// The elements from one tap of the kernel to the next.
    pub dilation: [usize; 3],
    /// The groups of channels that are convolved on their own.
    pub groups: usize,
    /// The elements that are cut off both ends of the output.
    pub padding: [usize; 3],
    /// The elements that are added at the end of the output.
    pub padding_out: [usize; 3],
    /// The number of input and output channels.
    pub channels: [usize; 2],
}

impl From<burn::nn::conv::ConvTranspose3d> for ConvTranspose3d {
    /// Keeps the parameters and their ids.
    fn from(conv: burn::nn::conv::ConvTranspose3d) -> Self {
        Self {
            weight: conv.weight,
            bias: conv.bias,
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            groups: conv.groups,
            padding: conv.padding,
            padding_out: conv.padding_out,
            channels: conv.channels,
        }
    }
}

impl ModuleDisplay for ConvTranspose3d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add_debug_attribute("channels", &self.channels)
            .add_debug_attribute("stride", &self.stride)
            .add_debug_attribute("kernel_size", &self.kernel_size)
            .add_debug_attribute("dilation", &self.dilation)
            .add("groups", &self.groups)
            .add_debug_attribute("padding", &self.padding)
            .add_debug_attribute("padding_out", &self.padding_out)
            .optional()
    }
}

impl ConvTranspose3d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// `[batch_size, channels_in, depth_in, height_in, width_in] -> [batch_size, channels_out, depth_out, height_out, width_out]`
    ///
    /// # Panics
    /// If `input` has not `channels_in` channels, or padding leaves nothing of the output.
    pub fn forward(&self, input: Tensor<5>) -> Tensor<5> {
        let options = ConvTransposeOptions::new(
            self.stride,
            self.padding,
            self.padding_out,
            self.dilation,
            self.groups,
        );
        let parameters = Parameters {
            weight: &self.weight,
            bias: &self.bias,
        };
        transposed_convolution(input, parameters, options, conv_transpose3d)
    }
}
