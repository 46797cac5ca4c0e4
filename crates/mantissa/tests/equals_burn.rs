//! Outside an autocast, and under the `fp32` recipe with Burn's kernels, a model of `mantissa::nn` is Burn's, bit for
//! bit; with fused kernels it agrees within the rounding of f32.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Distribution, Gradients, Int, Tensor, TensorData};
use mantissa::plan::{Plan, Recipe};
use mantissa::profiler::ProfilerConfig;
use mantissa::{Kernels, Session, nn};

const BATCH: usize = 3;
const LENGTH: usize = 7;
const WIDTH: usize = 12;

fn device() -> Device {
    Device::flex().autodiff()
}

/// The same network from either library.
macro_rules! network {
    ($module:ident, $($nn:tt)+) => {
        mod $module {
            use super::*;
            use $($nn)+::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
            use $($nn)+::{Embedding, EmbeddingConfig, Linear, LinearConfig};

            #[derive(Module, Debug)]
            pub struct Network {
                pub embedding: Embedding,
                pub encoder: TransformerEncoder,
                pub head: Linear,
            }

            impl Network {
                pub fn new(norm_first: bool) -> Self {
                    let device = device();
                    Self {
                        embedding: EmbeddingConfig::new(11, WIDTH).init(&device),
                        encoder: TransformerEncoderConfig::new(WIDTH, 20, 3, 2)
                            .with_norm_first(norm_first)
                            .with_dropout(0.0)
                            .init(&device),
                        head: LinearConfig::new(WIDTH, 5).init(&device),
                    }
                }

                pub fn loss(&self) -> Tensor<1> {
                    let encoded = self.encoder.forward(
                        TransformerEncoderInput::new(self.embedding.forward(tokens())).mask_pad(padding()),
                    );
                    self.head.forward(encoded).powi_scalar(2).mean()
                }
            }
        }
    };
}

network!(plain, burn::nn);
network!(mixed, mantissa::nn);

fn tokens() -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..BATCH * LENGTH).map(|i| (i * 5 % 11) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [BATCH, LENGTH]), &device())
}

fn padding() -> Tensor<2, Bool> {
    let mask: Vec<bool> = (0..BATCH * LENGTH).map(|i| i % LENGTH > 4).collect();
    Tensor::from_data(TensorData::new(mask, [BATCH, LENGTH]), &device())
}

struct GradientBits<'a> {
    gradients: &'a Gradients,
    bits: Vec<Vec<u32>>,
}

impl ModuleVisitor for GradientBits<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param
            .val()
            .grad(self.gradients)
            .expect("every parameter is used");
        self.bits.push(bits(gradient));
    }
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    tensor.into_data().iter::<f32>().map(f32::to_bits).collect()
}

fn gradient_bits<M: Module>(model: &M, loss: Tensor<1>) -> Vec<Vec<u32>> {
    let gradients = loss.backward();
    let mut visitor = GradientBits {
        gradients: &gradients,
        bits: Vec::new(),
    };
    model.visit(&mut visitor);
    visitor.bits
}

fn fp32_session(model: &mixed::Network) -> Session {
    let recipe = Recipe::preset("fp32").unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(model)).unwrap();
    Session::bind(model, &plan, 1).unwrap()
}

#[test]
fn outputs_and_gradients_are_burns() {
    for norm_first in [false, true] {
        let plain = plain::Network::new(norm_first);
        let mixed = mixed::Network::new(norm_first).load_record(plain.clone().into_record());
        let expected = (bits(plain.loss()), gradient_bits(&plain, plain.loss()));

        let outside = (bits(mixed.loss()), gradient_bits(&mixed, mixed.loss()));
        assert!(outside == expected, "outside an autocast");

        let session = fp32_session(&mixed);
        session.set_kernels(Kernels::Burn);
        let inside = session.autocast(|| mixed.loss());
        let inside = (bits(inside.clone()), gradient_bits(&mixed, inside));
        assert!(inside == expected, "under fp32");

        session.start_profiling(ProfilerConfig {
            every: 1,
            ..ProfilerConfig::default()
        });
        session.begin_step(0);
        let profiled = session.autocast(|| mixed.loss());
        let profiled = (bits(profiled.clone()), gradient_bits(&mixed, profiled));
        assert!(profiled == expected, "while profiling");
        let profile = session.finish_profiling().unwrap().into_profile();
        assert_eq!(profile.steps(), [0]);
        assert!(
            session.idle_sites().is_empty(),
            "{:?}",
            session.idle_sites()
        );
    }
}

/// The loss and every gradient of two models agree to a few units in the last place of each tensor's largest element.
fn assert_close(what: &str, actual: &[Vec<u32>], expected: &[Vec<u32>]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (tensor, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let values = |bits: &[u32]| bits.iter().copied().map(f32::from_bits).collect::<Vec<_>>();
        let (actual, expected) = (values(actual), values(expected));
        let amax = expected.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        for (a, e) in actual.iter().zip(&expected) {
            // Some gradients (of the key bias) are zero but for rounding.
            let bound = 2e-5 * amax + 1e-7;
            assert!(
                (a - e).abs() <= bound,
                "{what}, tensor {tensor}: {a} instead of {e}"
            );
        }
    }
}

#[test]
fn fused_kernels_agree_with_burns_compositions() {
    for norm_first in [false, true] {
        let plain = plain::Network::new(norm_first);
        let mixed = mixed::Network::new(norm_first).load_record(plain.clone().into_record());
        let (loss, expected) = (bits(plain.loss()), gradient_bits(&plain, plain.loss()));
        let session = fp32_session(&mixed);

        // Attention is one operation where nothing measures its products, else three.
        for profiled in [false, true] {
            if profiled {
                session.start_profiling(ProfilerConfig {
                    every: 1,
                    ..ProfilerConfig::default()
                });
            }
            session.begin_step(0);
            let fused = session.autocast(|| mixed.loss());
            let what = format!("norm_first {norm_first}, profiled {profiled}");
            assert_close(&what, &[bits(fused.clone())], std::slice::from_ref(&loss));
            assert_close(&what, &gradient_bits(&mixed, fused), &expected);
        }
    }
}

#[test]
fn both_masks_together_agree_with_burn() {
    let device = device();
    let plain = burn::nn::attention::MultiHeadAttentionConfig::new(WIDTH, 3)
        .with_dropout(0.0)
        .init(&device);
    let mixed = nn::attention::MultiHeadAttention::from(plain.clone());
    let plan = Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &mantissa::sites(&mixed));
    let session = Session::bind(&mixed, &plan.unwrap(), 1).unwrap();
    let x = Tensor::<3>::random([BATCH, LENGTH, WIDTH], Distribution::Default, &device);
    let causal = Tensor::<2, Bool>::tril_mask([LENGTH, LENGTH], 0, &device)
        .unsqueeze::<3>()
        .expand([BATCH, LENGTH, LENGTH]);
    let expected = plain.forward(
        burn::nn::attention::MhaInput::self_attn(x.clone())
            .mask_pad(padding())
            .mask_attn(causal.clone()),
    );
    let actual = session.autocast(|| {
        let input = nn::attention::MhaInput::self_attn(x).mask_pad(padding());
        mixed.forward(input.mask_attn(causal))
    });
    assert_close(
        "weights",
        &[bits(actual.weights)],
        &[bits(expected.weights)],
    );
    assert_close(
        "context",
        &[bits(actual.context)],
        &[bits(expected.context)],
    );
}

#[test]
fn cross_entropy_and_activations_agree_with_burn() {
    let device = device();
    let layer = nn::LinearConfig::new(4, 3).init(&device);
    let plan = Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &mantissa::sites(&layer));
    let session = Session::bind(&layer, &plan.unwrap(), 1).unwrap();
    let normal = Distribution::Normal(0.0, 3.0);
    let logits = Tensor::<2>::random([17, 31], normal, &device).require_grad();
    let targets: Vec<i64> = (0..17).map(|i| i * 7 % 31).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [17]), &device);
    let loss = || {
        let gelu = nn::Gelu::new().forward(logits.clone());
        let tanh = nn::Gelu::new_approximate().forward(gelu);
        nn::loss::CrossEntropyLossConfig::new()
            .init(&device)
            .forward(tanh, targets.clone())
    };
    let gradient = |loss: Tensor<1>| bits(logits.grad(&loss.backward()).unwrap());
    let (burns, fused) = (loss(), session.autocast(loss));
    assert_close("loss", &[bits(fused.clone())], &[bits(burns.clone())]);
    assert_close("gradient", &[gradient(fused)], &[gradient(burns)]);
}

#[test]
fn records_load_both_ways() {
    let plain = plain::Network::new(true);
    let mixed = mixed::Network::new(true);
    let from_plain = mixed::Network::new(true).load_record(plain.clone().into_record());
    let from_mixed = plain::Network::new(true).load_record(mixed.clone().into_record());
    assert_eq!(bits(from_plain.loss()), bits(plain.loss()));
    assert_eq!(bits(from_mixed.loss()), bits(mixed.loss()));
}

#[test]
fn a_linear_layer_takes_inputs_of_any_rank() {
    let device = device();
    let layer = nn::LinearConfig::new(4, 3).init(&device);
    let recipe = Recipe::preset("int8").unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(&layer)).unwrap();
    let session = Session::bind(&layer, &plan, 1).unwrap();
    let flat = Tensor::<2>::random([10, 4], Distribution::Default, &device);
    let cube = flat.clone().reshape([2, 5, 4]);
    // Scales of int8 rows do not depend on how the rows are grouped.
    let (flat, cube) = session.autocast(|| (layer.forward(flat), layer.forward(cube)));
    assert_eq!(bits(flat), bits(cube));
}

#[test]
fn cross_attention_is_burns() {
    use burn::nn::attention::CrossAttentionConfig as Plain;
    use nn::attention::{CrossAttentionCache, CrossAttentionConfig};

    const CONTEXT: usize = 10;
    let random = |shape| Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device());
    let (query, context) = (
        random([BATCH, 4, WIDTH]),
        random([BATCH, LENGTH, CONTEXT]).require_grad(),
    );
    // As many heads of keys as of queries, and one for all.
    for (heads_kv, quiet) in [(4, false), (1, true), (2, false)] {
        let plain = Plain::new(WIDTH, CONTEXT, 4, heads_kv, 3)
            .with_dropout(0.0)
            .with_quiet_softmax(quiet)
            .init(&device());
        let mixed = CrossAttentionConfig::new(WIDTH, CONTEXT, 4, heads_kv, 3)
            .with_dropout(0.0)
            .with_quiet_softmax(quiet)
            .init(&device())
            .load_record(plain.clone().into_record());
        let weight = |y: &Tensor<3>| -> Tensor<3> {
            Tensor::<1, Int>::arange(1..y.shape().num_elements() as i64 + 1, &device())
                .float()
                .sin()
                .reshape(y.dims())
        };
        let outcome = |y: Tensor<3>, gradients: &dyn Fn(Tensor<1>) -> Vec<Vec<u32>>| {
            let loss = (y.clone() * weight(&y)).sum();
            (bits(y), gradients(loss))
        };
        let inputs = || (query.clone(), context.clone(), Some(padding()));
        let forward = || {
            let (query, context, mask) = inputs();
            mixed.forward(query, context, mask)
        };
        let of_mixed = |loss| gradient_bits(&mixed, loss);
        let (q, c, mask) = inputs();
        let expected = outcome(plain.forward(q, c, mask), &|loss| {
            gradient_bits(&plain, loss)
        });
        assert_eq!(outcome(forward(), &of_mixed), expected);

        let sites = mantissa::sites(&mixed).into_iter();
        let names: Vec<_> = sites.map(|site| site.name).collect();
        assert_eq!(
            names,
            ["query", "key", "value", "scores", "context", "output"]
        );
        let recipe = |name| {
            let recipe = Recipe::preset(name).unwrap();
            let plan = Plan::from_recipe(&recipe, &mantissa::sites(&mixed)).unwrap();
            Session::bind(&mixed, &plan, 1).unwrap()
        };
        let session = recipe("fp32");
        session.set_kernels(Kernels::Burn);
        assert_eq!(session.autocast(|| outcome(forward(), &of_mixed)), expected);
        assert!(session.idle_sites().is_empty());
        session.set_kernels(Kernels::Fused);
        let apart = |y: Tensor<3>, expected: &[u32]| {
            let values = y.into_data().iter::<f32>().collect::<Vec<_>>();
            let pairs = values.iter().zip(expected);
            pairs.fold(0.0_f32, |most, (x, e)| {
                most.max((x - f32::from_bits(*e)).abs())
            })
        };
        assert!(apart(session.autocast(forward), &expected.0) < 1e-5);
        let coarse = apart(recipe("fp8-hybrid").autocast(forward), &expected.0);
        assert!((1e-4..0.5).contains(&coarse), "{coarse}");

        // Keys and values of the first call.
        let mut cache = CrossAttentionCache::new();
        let (q, c, mask) = inputs();
        let first = mixed.forward_cache(q.clone(), c.clone(), mask.clone(), &mut cache);
        assert_eq!(bits(first), expected.0);
        let again = mixed.forward_cache(q, c * 2.0, mask, &mut cache);
        assert_eq!(bits(again), expected.0);
    }
}
