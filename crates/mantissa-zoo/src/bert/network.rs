//! The network itself, over the layers that the parent module calls `nn`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::nn::loss::CrossEntropyLossConfig;
use super::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use super::nn::{
    Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig,
    Linear, LinearConfig,
};
use crate::bert::BertConfig;
use crate::source::MaskedBatch;

/// Standard deviation of the embeddings at the start, as in BERT (Devlin et al. 2018, section A.2 and its code).
const EMBEDDING_DEVIATION: f64 = 0.02;

/// A BERT encoder that predicts masked tokens.
#[derive(Module, Debug)]
pub struct Bert {
    /// A vector for each token id.
    pub token_embedding: Embedding,
    /// A vector for each place in a sequence.
    pub position_embedding: Embedding,
    /// Normalizes the sum of both.
    pub embedding_norm: LayerNorm,
    /// Drops some of it in training.
    pub dropout: Dropout,
    /// Lets the tokens of a sequence see each other.
    pub encoder: TransformerEncoder,
    /// Normalizes what the head reads.
    pub output_norm: LayerNorm,
    /// Scores every token id at every masked position.
    pub head: Linear,
}

impl Bert {
    /// The layers; their weights are drawn when first read.
    pub(in crate::bert) fn new(config: &BertConfig, device: &Device) -> Self {
        let embedding = |count| {
            EmbeddingConfig::new(count, config.d_model)
                .with_initializer(Initializer::Normal {
                    mean: 0.0,
                    std: EMBEDDING_DEVIATION,
                })
                .init(device)
        };
        let norm = || LayerNormConfig::new(config.d_model).init(device);
        Self {
            token_embedding: embedding(config.vocab_size),
            position_embedding: positions(config, device),
            embedding_norm: norm(),
            dropout: DropoutConfig::new(config.dropout).init(),
            encoder: TransformerEncoderConfig::new(
                config.d_model,
                config.d_ff,
                config.n_heads,
                config.n_layers,
            )
            .with_dropout(config.dropout)
            .with_norm_first(config.norm_first)
            .init(device),
            output_norm: norm(),
            head: LinearConfig::new(config.d_model, config.vocab_size).init(device),
        }
    }

    /// Scores (logits) of every token id at the masked positions only: nothing else enters the loss.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch_size, seq_len]`
    /// - positions: `[masked]`, indices into the flattened tokens
    /// - output: `[masked, vocab_size]`
    pub fn forward(&self, tokens: Tensor<2, Int>, positions: Tensor<1, Int>) -> Tensor<2> {
        let [batch_size, seq_len] = tokens.dims();
        let places = Tensor::arange(0..seq_len as i64, &tokens.device()).unsqueeze::<2>();
        let embedded =
            self.token_embedding.forward(tokens) + self.position_embedding.forward(places);
        let embedded = self.dropout.forward(self.embedding_norm.forward(embedded));
        let encoded = self.encoder.forward(TransformerEncoderInput::new(embedded));
        let [_, _, d_model] = encoded.dims();
        let masked = encoded
            .reshape([batch_size * seq_len, d_model])
            .select(0, positions);
        self.head.forward(self.output_norm.forward(masked))
    }

    /// Scores of every token id at the masked positions of a batch.
    pub fn logits(&self, batch: &MaskedBatch) -> Tensor<2> {
        let device = self.head.weight.device();
        let shape = [batch.shape.batch_size, batch.shape.seq_len];
        let tokens = Tensor::from_data(TensorData::new(batch.tokens.clone(), shape), &device);
        self.forward(tokens, integers(&batch.positions, &device))
    }

    /// Mean cross-entropy over the masked tokens of a batch, in nats.
    pub fn forward_loss(&self, batch: &MaskedBatch) -> Tensor<1> {
        let logits = self.logits(batch);
        let device = logits.device();
        let targets = integers(&batch.targets, &device);
        CrossEntropyLossConfig::new()
            .init(&device)
            .forward(logits, targets)
    }

    /// The likeliest token id at each masked position of a batch.
    pub fn predict(&self, batch: &MaskedBatch) -> Vec<i32> {
        let best = self.logits(batch).argmax(1).into_data();
        best.iter::<i32>().collect()
    }

    /// Mean loss over batches of one shape, without dropout; zero for none. NaN where the network has diverged.
    pub fn evaluate(&self, batches: &[MaskedBatch]) -> f64 {
        let network = self.valid();
        let losses = batches
            .iter()
            .map(|batch| network.forward_loss(batch).into_scalar::<f32>());
        losses.map(f64::from).sum::<f64>() / batches.len().max(1) as f64
    }
}

/// Position vectors that start as sinusoids of many wavelengths (Vaswani et al. 2017, section 3.5), as large as the token
/// embeddings: shifting by a few places is then one linear map, so that attention finds neighbours from the first steps on.
fn positions(config: &BertConfig, device: &Device) -> Embedding {
    let (places, width) = (config.seq_len, config.d_model);
    let amplitude = std::f64::consts::SQRT_2 * EMBEDDING_DEVIATION;
    let value = |index: usize| {
        let (place, feature) = (index / width, index % width);
        let wavelength = 10_000f64.powf((feature / 2 * 2) as f64 / width as f64);
        let angle = place as f64 / wavelength;
        let wave = if feature % 2 == 0 {
            angle.sin()
        } else {
            angle.cos()
        };
        (amplitude * wave) as f32
    };
    let values: Vec<f32> = (0..places * width).map(value).collect();
    let mut embedding = EmbeddingConfig::new(places, width).init(device);
    embedding.weight = Param::from_data(TensorData::new(values, [places, width]), device);
    embedding
}

/// A row of integers on the device.
fn integers(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}
