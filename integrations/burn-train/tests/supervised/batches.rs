//! Generated data, always the same, with overflows where a test wants them.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mantissa_formats::RandomBits;

pub const FEATURES: usize = 16;
pub const CLASSES: usize = 4;
pub const BATCH: usize = 8;

/// Samples in an order that does not change.
#[derive(Clone)]
pub struct Samples {
    count: usize,
    overflowing: Vec<usize>,
}

/// One sample: its features and its class.
#[derive(Clone, Debug)]
pub struct Sample {
    features: Vec<f32>,
    class: i64,
    overflows: bool,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub inputs: Tensor<2>,
    pub targets: Tensor<1, Int>,
    pub overflows: bool,
}

impl Samples {
    pub fn new(count: usize) -> Self {
        Self {
            count,
            overflowing: Vec::new(),
        }
    }

    /// The loss of the batch with this sample is not finite.
    pub fn with_overflow(mut self, sample: usize) -> Self {
        self.overflowing.push(sample);
        self
    }

    fn sample(&self, index: usize) -> Sample {
        let bits = RandomBits::new(7, index as u64);
        let class = index % CLASSES;
        let features = (0..FEATURES).map(|feature| {
            let noise = (bits.at(feature as u64) >> 8) as f32 / (1 << 24) as f32 - 0.5;
            let is_of_class = feature % CLASSES == class;
            noise + if is_of_class { 1.0 } else { 0.0 }
        });
        Sample {
            features: features.collect(),
            class: class as i64,
            overflows: self.overflowing.contains(&index),
        }
    }

    /// All batches of an epoch.
    pub fn batches(&self, device: &Device) -> Vec<Batch> {
        let samples: Vec<Sample> = (0..self.count).map(|index| self.sample(index)).collect();
        let batches = samples.chunks(BATCH).map(|samples| batch(samples, device));
        batches.collect()
    }
}

fn batch(samples: &[Sample], device: &Device) -> Batch {
    let features: Vec<f32> = samples
        .iter()
        .flat_map(|sample| sample.features.clone())
        .collect();
    let classes: Vec<i64> = samples.iter().map(|sample| sample.class).collect();
    let count = samples.len();
    Batch {
        inputs: Tensor::from_data(TensorData::new(features, [count, FEATURES]), device),
        targets: Tensor::from_data(TensorData::new(classes, [count]), device),
        overflows: samples.iter().any(|sample| sample.overflows),
    }
}

impl Dataset<Sample> for Samples {
    fn get(&self, index: usize) -> Result<Sample, DatasetError> {
        Ok(self.sample(index))
    }

    fn len(&self) -> usize {
        self.count
    }
}

struct InOrder;

impl Batcher<Sample, Batch> for InOrder {
    fn batch(&self, samples: Vec<Sample>, device: &Device) -> Batch {
        batch(&samples, device)
    }
}

pub fn loader(samples: &Samples) -> Arc<dyn DataLoader<Batch>> {
    DataLoaderBuilder::new(InOrder)
        .batch_size(BATCH)
        .build(samples.clone())
}
