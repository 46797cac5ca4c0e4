//! Every operation of the autocast table has the precision that the table says: under `fp16` the low ones compute
//! something else than under `fp32`, and the others the same bits.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use mantissa::plan::autocast::{AUTOCAST, Precision};
use mantissa::plan::{Plan, Recipe, Site, SiteKind};
use mantissa::{Session, nn};

#[derive(Module, Debug)]
struct Nothing {}

fn device() -> Device {
    Device::flex().autodiff()
}

/// Numbers that fp16 does not hold.
fn numbers<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as i64;
    let values = Tensor::<1, Int>::arange(1..count + 1, &device()).float();
    values.sin().reshape::<D, _>(shape)
}

/// The bits of an operation's result and of its input's gradient under a recipe.
fn bits<M: Module, const I: usize, const O: usize>(
    recipe: &str,
    model: &M,
    input: [usize; I],
    operation: impl Fn(&M, Tensor<I>) -> Tensor<O>,
) -> Vec<u32> {
    let products = [Site::new("product", SiteKind::Matmul)];
    let sites: Vec<Site> = mantissa::sites(model)
        .into_iter()
        .chain(products.clone())
        .collect();
    let plan = Plan::from_recipe(&Recipe::preset(recipe).unwrap(), &sites).unwrap();
    let session = Session::bind_with_products(model, &products, &plan, 0).unwrap();
    session.begin_step(0);
    device().seed(3);
    let input = numbers(input).require_grad();
    let result = session.autocast(|| operation(model, input.clone()));
    let gradients = (result.clone() * numbers(result.dims())).sum().backward();
    let gradient = input.grad(&gradients).unwrap().into_data();
    let result = result.into_data();
    result
        .iter::<f32>()
        .chain(gradient.iter::<f32>())
        .map(f32::to_bits)
        .collect()
}

/// The bits of the operation of this name in the table.
fn of(operation: &str, recipe: &str) -> Vec<u32> {
    let (device, plain) = (device(), &Nothing {});
    device.seed(1);
    match operation {
        "linear" => {
            let layer = nn::LinearConfig::new(5, 4).init(&device);
            bits(recipe, &layer, [3, 5], |layer, x: Tensor<2>| {
                layer.forward(x)
            })
        }
        "matmul" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| {
            mantissa::matmul("product", x, numbers([5, 4]))
        }),
        "conv1d" => {
            let layer = nn::conv::Conv1dConfig::new(2, 3, 3).init(&device);
            bits(recipe, &layer, [2, 2, 7], |layer, x| layer.forward(x))
        }
        "conv2d" => {
            let layer = nn::conv::Conv2dConfig::new([2, 3], [3, 3]).init(&device);
            bits(recipe, &layer, [2, 2, 5, 6], |layer, x| layer.forward(x))
        }
        "conv3d" => {
            let layer = nn::conv::Conv3dConfig::new([2, 3], [2, 2, 2]).init(&device);
            bits(recipe, &layer, [1, 2, 3, 4, 3], |layer, x| layer.forward(x))
        }
        "conv_transpose1d" => {
            let layer = nn::conv::ConvTranspose1dConfig::new([2, 3], 3).init(&device);
            bits(recipe, &layer, [2, 2, 7], |layer, x| layer.forward(x))
        }
        "conv_transpose2d" => {
            let layer = nn::conv::ConvTranspose2dConfig::new([2, 3], [3, 2]).init(&device);
            bits(recipe, &layer, [2, 2, 5, 4], |layer, x| layer.forward(x))
        }
        "lstm" => {
            let layer = nn::LstmConfig::new(4, 3, true).init(&device);
            bits(recipe, &layer, [2, 3, 4], |layer, x| {
                layer.forward(x, None).0
            })
        }
        "gru" => {
            let layer = nn::GruConfig::new(4, 3, true).init(&device);
            bits(recipe, &layer, [2, 3, 4], |layer, x| layer.forward(x, None))
        }
        "layer_norm" => {
            let layer = nn::LayerNormConfig::new(5).init(&device);
            bits(recipe, &layer, [3, 5], |layer, x: Tensor<2>| {
                layer.forward(x)
            })
        }
        "cross_entropy" => bits(recipe, plain, [3, 5], |_, x| {
            let targets = Tensor::<1, Int>::from_ints([4, 0, 2], &x.device());
            let loss = nn::loss::CrossEntropyLossConfig::new().init(&x.device());
            loss.forward(x, targets)
        }),
        "gelu" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| {
            nn::Gelu::new().forward(x)
        }),
        "dropout" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| {
            nn::DropoutConfig::new(0.3).init().forward(x)
        }),
        "softmax" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| softmax(x, 1)),
        "sum" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x.sum_dim(0)),
        "exp" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x.exp()),
        "log" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x.abs().log()),
        "pow" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x.powf_scalar(3.0)),
        "add" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x + numbers([3, 5])),
        "mul" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| x * numbers([3, 5])),
        "cat" => bits(recipe, plain, [3, 5], |_, x: Tensor<2>| {
            Tensor::cat(vec![x, numbers([3, 5])], 0)
        }),
        unknown => panic!("{unknown} is in the table and not in this test"),
    }
}

#[test]
fn operations_have_the_precision_of_the_table() {
    for rule in AUTOCAST {
        for operation in rule.operation.split(", ") {
            let (low, full) = (of(operation, "fp16"), of(operation, "fp32"));
            assert_eq!(low != full, rule.precision == Precision::Low, "{operation}");
        }
    }
}
