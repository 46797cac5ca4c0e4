//! The transformer decoder, and inference one position at a time, are Burn's outside an autocast and under `fp32` with
//! Burn's kernels, bit for bit; with fused kernels they agree within the rounding of f32.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::attention::generate_autoregressive_mask;
use burn::tensor::{Bool, Device, Distribution, Gradients, Tensor, TensorData};
use mantissa::plan::{Plan, Recipe};
use mantissa::{Kernels, Session};

const BATCH: usize = 2;
const TARGET: usize = 5;
const MEMORY: usize = 6;
const WIDTH: usize = 12;

fn device() -> Device {
    Device::flex().autodiff()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn random(length: usize, device: &Device) -> Tensor<3> {
    Tensor::random([BATCH, length, WIDTH], Distribution::Default, device)
}

/// The last two positions of the second sequence are padding.
fn padding(length: usize, device: &Device) -> Tensor<2, Bool> {
    let mask: Vec<bool> = (0..BATCH * length)
        .map(|i| i >= BATCH * length - 2)
        .collect();
    Tensor::from_data(TensorData::new(mask, [BATCH, length]), device)
}

/// The same names from either library.
macro_rules! library {
    ($module:ident, $($nn:tt)+) => {
        mod $module {
            use super::*;
            pub use $($nn)+::transformer::{
                TransformerDecoder as Decoder, TransformerDecoderConfig as Config,
                TransformerDecoderInput as Input, TransformerEncoder as Encoder,
                TransformerEncoderConfig as EncoderConfig, TransformerEncoderInput as EncoderInput,
            };

            pub fn decoder(norm_first: bool, device: &Device) -> Decoder {
                Config::new(WIDTH, 20, 3, 2)
                    .with_norm_first(norm_first)
                    .with_dropout(0.0)
                    .init(device)
            }

            pub fn encoder(norm_first: bool, device: &Device) -> Encoder {
                EncoderConfig::new(WIDTH, 20, 3, 2)
                    .with_norm_first(norm_first)
                    .with_dropout(0.0)
                    .init(device)
            }

            pub fn input(target: Tensor<3>, memory: Tensor<3>, masked: bool) -> Input {
                let (device, length) = (target.device(), target.dims()[1]);
                let input = Input::new(target, memory);
                if !masked {
                    return input;
                }
                let pairs = Tensor::<2, Bool>::tril_mask([length, MEMORY], 2, &device);
                input
                    .target_mask_pad(padding(length, &device))
                    .target_mask_attn(generate_autoregressive_mask(BATCH, length, &device))
                    .memory_mask_pad(padding(MEMORY, &device))
                    .memory_mask_attn(pairs.unsqueeze::<3>().expand([BATCH, length, MEMORY]))
            }

            /// What the decoder makes of ever longer targets, one position more at a time.
            pub fn decode(decoder: &Decoder, target: &Tensor<3>, memory: &Tensor<3>) -> Vec<f32> {
                let mut cache = decoder.new_autoregressive_cache();
                let decoded = (1..=TARGET).map(|length| {
                    let input = Input::new(target.clone().narrow(1, 0, length), memory.clone())
                        .target_mask_attn(generate_autoregressive_mask(BATCH, length, &target.device()));
                    decoder.forward_autoregressive_inference(input, &mut cache)
                });
                values(decoded.last().unwrap())
            }

            pub fn encode(encoder: &Encoder, x: &Tensor<3>) -> Vec<f32> {
                let mut cache = encoder.new_autoregressive_cache();
                let encoded = (1..=TARGET).map(|length| {
                    let mask = generate_autoregressive_mask(BATCH, length, &x.device());
                    let input = EncoderInput::new(x.clone().narrow(1, 0, length)).mask_attn(mask);
                    encoder.forward_autoregressive_inference(input, &mut cache)
                });
                values(encoded.last().unwrap())
            }
        }
    };
}

library!(plain, burn::nn);
library!(mixed, mantissa::nn);

/// Gradients by the names of their parameters: the order of fields is not Burn's.
struct ByName<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for ByName<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).unwrap();
        self.found.insert(self.path.join("."), values(gradient));
    }
}

/// The output, the gradients of target and memory, and those of every parameter.
fn run<M: Module>(
    decoder: &M,
    [target, memory]: [&Tensor<3>; 2],
    forward: impl Fn(&M, Tensor<3>, Tensor<3>) -> Tensor<3>,
) -> BTreeMap<String, Vec<f32>> {
    let [target, memory] = [target, memory].map(|x| x.clone().detach().require_grad());
    let output = forward(decoder, target.clone(), memory.clone());
    let gradients = output.clone().powi_scalar(2).mean().backward();
    let found = [("output", output)].into_iter().chain(
        [("target", &target), ("memory", &memory)]
            .map(|(name, x)| (name, x.grad(&gradients).unwrap())),
    );
    let mut visitor = ByName {
        gradients: &gradients,
        path: Vec::new(),
        found: found
            .map(|(name, x)| (name.to_owned(), values(x)))
            .collect(),
    };
    decoder.visit(&mut visitor);
    visitor.found
}

fn bits(found: &BTreeMap<String, Vec<f32>>) -> Vec<(&str, Vec<u32>)> {
    let bits = |x: &Vec<f32>| x.iter().map(|x| x.to_bits()).collect();
    found
        .iter()
        .map(|(name, x)| (name.as_str(), bits(x)))
        .collect()
}

fn assert_close(what: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let amax = expected.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
    for (a, e) in actual.iter().zip(expected) {
        assert!(
            (a - e).abs() <= 2e-5 * amax + 1e-6,
            "{what}: {a} instead of {e}"
        );
    }
}

fn session<M: Module>(model: &M, recipe: &str) -> Session {
    let recipe = Recipe::preset(recipe).unwrap();
    let plan = Plan::from_recipe(&recipe, &mantissa::sites(model)).unwrap();
    Session::bind(model, &plan, 1).unwrap()
}

#[test]
fn outputs_and_gradients_are_burns() {
    let device = device();
    let (target, memory) = (random(TARGET, &device), random(MEMORY, &device));
    for (norm_first, masked) in [(false, false), (false, true), (true, false), (true, true)] {
        let plain = plain::decoder(norm_first, &device);
        let mixed = mixed::decoder(norm_first, &device).load_record(plain.clone().into_record());
        assert_eq!(
            plain.to_string().lines().next(),
            mixed.to_string().lines().next()
        );
        let of_plain =
            |decoder: &plain::Decoder, x, memory| decoder.forward(plain::input(x, memory, masked));
        let of_mixed =
            |decoder: &mixed::Decoder, x, memory| decoder.forward(mixed::input(x, memory, masked));
        let expected = run(&plain, [&target, &memory], of_plain);
        let actual = run(&mixed, [&target, &memory], of_mixed);
        assert!(bits(&actual) == bits(&expected), "outside an autocast");
        let loaded = plain::decoder(norm_first, &device).load_record(mixed.clone().into_record());
        let actual = run(&loaded, [&target, &memory], of_plain);
        assert!(bits(&actual) == bits(&expected), "loaded");

        let session = session(&mixed, "fp32");
        session.set_kernels(Kernels::Burn);
        let burns = session.autocast(|| run(&mixed, [&target, &memory], of_mixed));
        assert!(bits(&burns) == bits(&expected), "with Burn's kernels");
        assert!(session.idle_sites().is_empty());
        session.set_kernels(Kernels::Fused);
        let fused = session.autocast(|| run(&mixed, [&target, &memory], of_mixed));
        for (name, expected) in &expected {
            assert_close(name, &fused[name], expected);
        }
    }
}

#[test]
fn positions_one_at_a_time_are_burns_and_those_of_the_whole() {
    let device = Device::flex();
    let (target, memory) = (random(TARGET, &device), random(MEMORY, &device));
    let mask = || generate_autoregressive_mask(BATCH, TARGET, &device);
    for norm_first in [false, true] {
        let plain = plain::decoder(norm_first, &device);
        let mixed = mixed::decoder(norm_first, &device).load_record(plain.clone().into_record());
        let decoded = mixed::decode(&mixed, &target, &memory);
        assert_eq!(decoded, plain::decode(&plain, &target, &memory));
        let whole = mixed::Input::new(target.clone(), memory.clone()).target_mask_attn(mask());
        assert_close("decoder", &decoded, &values(mixed.forward(whole)));

        let plain = plain::encoder(norm_first, &device);
        let mixed = mixed::encoder(norm_first, &device).load_record(plain.clone().into_record());
        let encoded = mixed::encode(&mixed, &target);
        assert_eq!(encoded, plain::encode(&plain, &target));
        let whole = mixed::EncoderInput::new(target.clone()).mask_attn(mask());
        assert_close("encoder", &encoded, &values(mixed.forward(whole)));
    }
}

#[test]
fn formats_without_scales_decode_one_position_at_a_time_as_together() {
    let device = Device::flex();
    let (target, memory) = (random(TARGET, &device), random(MEMORY, &device));
    let decoder = mixed::decoder(true, &device);
    // Formats without scales: what an operand becomes does not depend on its neighbours.
    let session = session(&decoder, "bf16");
    let decoded = session.autocast(|| mixed::decode(&decoder, &target, &memory));
    let mask = generate_autoregressive_mask(BATCH, TARGET, &device);
    let whole = mixed::Input::new(target, memory).target_mask_attn(mask);
    let whole = session.autocast(|| values(decoder.forward(whole)));
    let amax = whole.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
    for (a, e) in decoded.iter().zip(&whole) {
        // A sum that is rounded another way may round to another bf16 in the next layer.
        assert!((a - e).abs() <= amax / 64.0, "{a} instead of {e}");
    }
}

#[test]
fn quantized_decoders_use_every_site() {
    let device = device();
    let decoder = mixed::decoder(false, &device);
    let session = session(&decoder, "fp8-hybrid");
    let (target, memory) = (random(TARGET, &device), random(MEMORY, &device));
    let exact = values(decoder.forward(mixed::input(target.clone(), memory.clone(), true)));
    let decoded = session.autocast(|| values(decoder.forward(mixed::input(target, memory, true))));
    assert!(session.idle_sites().is_empty());
    assert_ne!(decoded, exact);
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>();
    let error = norm(&mut decoded.iter().zip(&exact).map(|(a, e)| a - e));
    assert!(error < 0.01 * norm(&mut exact.iter().copied()), "{error}");
}
