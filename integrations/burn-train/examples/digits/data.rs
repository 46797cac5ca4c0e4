//! Digits as burn-train loads them.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor};

use crate::digits;

/// The digits `first..first + count`, by their numbers.
pub struct Digits {
    first: u64,
    count: usize,
}

impl Digits {
    pub fn new(first: u64, count: usize) -> Self {
        Self { first, count }
    }

    /// In batches, in an order that a resumed run sees too.
    pub fn loader(self, batch: usize) -> Arc<dyn DataLoader<Batch>> {
        DataLoaderBuilder::new(Draw).batch_size(batch).build(self)
    }
}

impl Dataset<u64> for Digits {
    fn get(&self, index: usize) -> Result<u64, DatasetError> {
        Ok(self.first + index as u64)
    }

    fn len(&self) -> usize {
        self.count
    }
}

/// Images `[batch_size, 28, 28]` and their digits.
#[derive(Clone, Debug)]
pub struct Batch {
    pub images: Tensor<3>,
    pub targets: Tensor<1, Int>,
}

/// Draws the digits of a batch.
struct Draw;

impl Batcher<u64, Batch> for Draw {
    fn batch(&self, numbers: Vec<u64>, device: &Device) -> Batch {
        let drawn = numbers
            .into_iter()
            .map(|number| digits::batch(number, 1, device));
        let (images, targets) = drawn.unzip::<_, _, Vec<_>, Vec<_>>();
        Batch {
            images: Tensor::cat(images, 0),
            targets: Tensor::cat(targets, 0),
        }
    }
}
