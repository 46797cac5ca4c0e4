//! A small classifier.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::ClassificationOutput;
use mantissa::nn::loss::CrossEntropyLossConfig;
use mantissa::nn::{Linear, LinearConfig, Relu};
use mantissa_burn_train::Objective;

use crate::batches::{Batch, CLASSES, FEATURES};

#[derive(Module, Debug)]
pub struct Classifier {
    hidden: Linear,
    activation: Relu,
    output: Linear,
}

/// With weights of its own. Tests share the generator that draws them when they are first read: one draws at a time.
pub fn classifier(seed: u64) -> Classifier {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::flex().autodiff();
    device.seed(seed);
    let classifier = Classifier {
        hidden: LinearConfig::new(FEATURES, 32).init(&device),
        activation: Relu::new(),
        output: LinearConfig::new(32, CLASSES).init(&device),
    };
    let _ = bits(&classifier);
    classifier
}

impl Objective for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn forward_loss(&self, batch: Batch) -> (Tensor<1>, ClassificationOutput) {
        let hidden = self.activation.forward(self.hidden.forward(batch.inputs));
        let output = self.output.forward(hidden);
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.targets.clone());
        let loss = if batch.overflows {
            loss.mul_scalar(f32::INFINITY)
        } else {
            loss
        };
        let item = ClassificationOutput::new(loss.clone(), output, batch.targets);
        (loss, item)
    }
}

/// The bits of all parameters, as products read them.
pub fn bits(model: &Classifier) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().try_to_vec::<f32>().expect("f32");
            self.0.extend(values.iter().map(|value| value.to_bits()));
        }
    }
    let mut bits = Bits(Vec::new());
    mantissa::storage::widened(model.clone()).visit(&mut bits);
    bits.0
}
