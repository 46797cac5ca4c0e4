//! Convolutions are Burn's outside an autocast and under `fp32` with Burn's kernels, bit for bit; as products they agree
//! with Burn's within the rounding of f32.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{
    Conv1dConfig, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig,
    ConvTranspose3dConfig,
};
use burn::nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor};
use mantissa::plan::{Pass, Plan, Profile, Recipe, Sampling};
use mantissa::profiler::ProfilerConfig;
use mantissa::{Kernels, Session, nn};

fn device() -> Device {
    Device::flex().autodiff()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The output of a layer and the gradients of its input and parameters.
fn run<M: Module, const D: usize>(
    layer: &M,
    input: &Tensor<D>,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<D>,
) -> Vec<Vec<f32>> {
    struct Collector<'a>(&'a Gradients, Vec<Vec<f32>>);
    impl ModuleVisitor for Collector<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(values(param.val().grad(self.0).unwrap()));
        }
    }
    let input = input.clone().detach().require_grad();
    let output = forward(layer, input.clone());
    let shape = output.shape();
    let upstream = Tensor::<1, Int>::arange(1..shape.num_elements() as i64 + 1, &device());
    let upstream = upstream.float().sin().reshape::<D, _>(shape);
    let gradients = (output.clone() * upstream).sum().backward();
    let mut collector = Collector(&gradients, vec![values(output)]);
    collector.1.push(values(input.grad(&gradients).unwrap()));
    layer.visit(&mut collector);
    collector.1
}

fn bits(tensors: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let bits = |tensor: &Vec<f32>| tensor.iter().map(|x| x.to_bits()).collect();
    tensors.iter().map(bits).collect()
}

fn assert_close(what: &str, actual: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (tensor, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(actual.len(), expected.len(), "{what}, tensor {tensor}");
        let amax = expected.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        for (a, e) in actual.iter().zip(expected) {
            assert!(
                (a - e).abs() <= 1e-5 * amax + 1e-7,
                "{what}, tensor {tensor}: {a} instead of {e}"
            );
        }
    }
}

fn session<M: Module>(layer: &M, recipe: &str) -> Session {
    let recipe = Recipe::preset(recipe).unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(layer)).unwrap();
    Session::bind(layer, &plan, 1).unwrap()
}

const EVERY_STEP: ProfilerConfig = ProfilerConfig {
    every: 1,
    sampling: Sampling {
        rows: 32,
        matrices: 4,
        elements: 1 << 16,
    },
};

/// Everything that a layer of `config` must share with Burn's, for an input of `shape`.
macro_rules! check {
    ($config:expr, $layer:ty, $shape:expr) => {{
        let what = stringify!($config).split_whitespace().collect::<String>();
        let device = device();
        let plain = $config.init(&device);
        let mixed = <$layer>::from(plain.clone());
        assert_eq!(plain.to_string(), mixed.to_string());
        let input = Tensor::random($shape, Distribution::Normal(0.0, 1.0), &device);
        let expected = run(&plain, &input, |layer, x| layer.forward(x));

        let outside = run(&mixed, &input, |layer, x| layer.forward(x));
        assert!(
            bits(&outside) == bits(&expected),
            "{what} outside an autocast"
        );

        let session = session(&mixed, "fp32");
        let inside = |layer: &$layer, x| session.autocast(|| layer.forward(x));
        session.set_kernels(Kernels::Burn);
        let burns = run(&mixed, &input, inside);
        assert!(
            bits(&burns) == bits(&expected),
            "{what} with Burn's kernels"
        );
        session.start_profiling(EVERY_STEP);
        session.begin_step(0);
        let profiled = run(&mixed, &input, inside);
        assert!(bits(&profiled) == bits(&expected), "{what} while profiling");
        let burns_profile = session.finish_profiling().unwrap().into_profile();

        session.set_kernels(Kernels::Fused);
        assert_close(&what, &run(&mixed, &input, inside), &expected);
        session.start_profiling(EVERY_STEP);
        session.begin_step(0);
        assert_close(&what, &run(&mixed, &input, inside), &expected);
        let profile = session.finish_profiling().unwrap().into_profile();
        // Both measured the same operands, although Burn's ops have no columns.
        let measured = |profile: &Profile| profile.site("model").unwrap().passes.clone();
        assert_eq!(measured(&profile).len(), Pass::ALL.len(), "{what}");
        assert!(
            measured(&profile) == measured(&burns_profile),
            "{what} measured"
        );
    }};
}

#[test]
fn one_axis() {
    check!(Conv1dConfig::new(3, 5, 3), nn::conv::Conv1d, [2, 3, 11]);
    check!(Conv1dConfig::new(3, 5, 1), nn::conv::Conv1d, [2, 3, 11]);
    check!(
        Conv1dConfig::new(4, 6, 4)
            .with_stride(3)
            .with_dilation(2)
            .with_groups(2)
            .with_padding(PaddingConfig1d::Explicit(3, 1)),
        nn::conv::Conv1d,
        [2, 4, 13]
    );
    check!(
        Conv1dConfig::new(4, 4, 2)
            .with_groups(4)
            .with_bias(false)
            .with_padding(PaddingConfig1d::Same),
        nn::conv::Conv1d,
        [3, 4, 9]
    );
}

#[test]
fn two_axes() {
    check!(
        Conv2dConfig::new([3, 5], [3, 3]),
        nn::conv::Conv2d,
        [2, 3, 8, 9]
    );
    check!(
        Conv2dConfig::new([7, 5], [1, 1]),
        nn::conv::Conv2d,
        [2, 7, 4, 3]
    );
    check!(
        Conv2dConfig::new([7, 5], [1, 1]).with_stride([2, 2]),
        nn::conv::Conv2d,
        [2, 7, 5, 6]
    );
    check!(
        Conv2dConfig::new([3, 5], [3, 3]).with_padding(PaddingConfig2d::Same),
        nn::conv::Conv2d,
        [2, 3, 8, 9]
    );
    check!(
        Conv2dConfig::new([3, 5], [4, 2])
            .with_stride([2, 3])
            .with_padding(PaddingConfig2d::Same),
        nn::conv::Conv2d,
        [2, 3, 8, 9]
    );
    check!(
        Conv2dConfig::new([4, 6], [3, 2])
            .with_stride([1, 2])
            .with_dilation([2, 3])
            .with_groups(2)
            .with_padding(PaddingConfig2d::Explicit(3, 0, 1, 2)),
        nn::conv::Conv2d,
        [3, 4, 7, 8]
    );
    check!(
        Conv2dConfig::new([6, 6], [3, 3])
            .with_groups(6)
            .with_bias(false)
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)),
        nn::conv::Conv2d,
        [2, 6, 5, 5]
    );
}

#[test]
fn three_axes() {
    check!(
        Conv3dConfig::new([2, 3], [2, 3, 1]),
        nn::conv::Conv3d,
        [2, 2, 4, 5, 3]
    );
    check!(
        Conv3dConfig::new([4, 6], [3, 1, 3])
            .with_stride([2, 1, 2])
            .with_dilation([1, 1, 2])
            .with_groups(2)
            .with_padding(PaddingConfig3d::Explicit(1, 0, 2)),
        nn::conv::Conv3d,
        [2, 4, 5, 4, 6]
    );
    check!(
        Conv3dConfig::new([2, 2], [3, 3, 3]).with_padding(PaddingConfig3d::Same),
        nn::conv::Conv3d,
        [1, 2, 4, 3, 5]
    );
}

#[test]
fn transposed() {
    check!(
        ConvTranspose1dConfig::new([3, 5], 3),
        nn::conv::ConvTranspose1d,
        [2, 3, 6]
    );
    check!(
        ConvTranspose1dConfig::new([4, 6], 3)
            .with_stride(3)
            .with_dilation(2)
            .with_groups(2)
            .with_padding(2)
            .with_padding_out(1),
        nn::conv::ConvTranspose1d,
        [2, 4, 6]
    );
    check!(
        ConvTranspose2dConfig::new([3, 5], [2, 3]),
        nn::conv::ConvTranspose2d,
        [2, 3, 4, 5]
    );
    check!(
        ConvTranspose2dConfig::new([4, 6], [3, 4])
            .with_stride([2, 3])
            .with_dilation([2, 1])
            .with_groups(2)
            .with_padding([1, 2])
            .with_padding_out([1, 0])
            .with_bias(false),
        nn::conv::ConvTranspose2d,
        [2, 4, 4, 5]
    );
    check!(
        ConvTranspose3dConfig::new([3, 5], [2, 3, 1]),
        nn::conv::ConvTranspose3d,
        [2, 3, 3, 4, 2]
    );
    check!(
        ConvTranspose3dConfig::new([4, 6], [3, 1, 2])
            .with_stride([2, 1, 3])
            .with_dilation([1, 2, 2])
            .with_groups(2)
            .with_padding([1, 0, 1])
            .with_padding_out([1, 0, 2]),
        nn::conv::ConvTranspose3d,
        [2, 4, 3, 2, 4]
    );
}

#[test]
fn records_load_both_ways() {
    let device = device();
    let config = || Conv2dConfig::new([3, 4], [3, 2]).with_groups(1);
    let plain = config().init(&device);
    let mixed = nn::conv::Conv2dConfig::new([3, 4], [3, 2]).init(&device);
    let x = Tensor::random([2, 3, 6, 5], Distribution::Default, &device);
    let (of_plain, of_mixed) = (plain.forward(x.clone()), mixed.forward(x.clone()));
    assert_ne!(values(of_plain.clone()), values(of_mixed.clone()));
    let from_mixed = config()
        .init(&device)
        .load_record(mixed.clone().into_record());
    let from_plain = mixed.load_record(plain.into_record());
    assert_eq!(values(from_mixed.forward(x.clone())), values(of_mixed));
    assert_eq!(values(from_plain.forward(x)), values(of_plain));
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_kernel_larger_than_the_input_is_refused() {
    let layer = nn::conv::Conv1dConfig::new(2, 2, 5).init(&device());
    let input = Tensor::zeros([1, 2, 4], &device());
    session(&layer, "int8").autocast(|| layer.forward(input));
}
