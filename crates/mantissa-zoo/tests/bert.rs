//! The network learns from what is visible only, and is the same over both sets of layers.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use mantissa_zoo::{
    BatchShape, BertConfig, BertError, HiddenMarkovConfig, HiddenMarkovSource, MaskedBatch,
    MaskedSource,
};

const SHAPE: BatchShape = BatchShape {
    batch_size: 4,
    seq_len: 32,
};

fn source() -> HiddenMarkovSource {
    HiddenMarkovSource::new(&HiddenMarkovConfig::default(), SHAPE, 8, 1).expect("valid")
}

fn small(vocab_size: usize) -> BertConfig {
    BertConfig {
        seq_len: SHAPE.seq_len,
        d_model: 32,
        d_ff: 64,
        ..BertConfig::bert_tiny(vocab_size)
    }
}

fn losses(model: impl Fn(&MaskedBatch) -> f32, source: &HiddenMarkovSource) -> Vec<u32> {
    (0..3)
        .map(|step| model(&source.batch(step)).to_bits())
        .collect()
}

#[test]
fn a_seed_fixes_the_weights_of_both_networks() {
    let (source, device) = (source(), Device::flex());
    let config = small(source.vocab_size());
    let mixed = |seed| {
        let model = config.init(seed, &device).expect("valid");
        losses(
            |batch| model.forward_loss(batch).into_scalar::<f32>(),
            &source,
        )
    };
    let plain = config.init_plain(1, &device).expect("valid");
    assert_eq!(mixed(1), mixed(1));
    assert_ne!(mixed(1), mixed(2));
    assert_eq!(
        mixed(1),
        losses(
            |batch| plain.forward_loss(batch).into_scalar::<f32>(),
            &source
        )
    );
}

#[test]
fn presets_have_the_sizes_they_are_named_for() {
    let device = Device::flex();
    let tiny = BertConfig::bert_tiny(1000).init(0, &device).expect("valid");
    // Embeddings 128 (1000 + 64), head 129 x 1000, layers 2 x (4 x 128 x 129 + 128 x 512 x 2 + 640 + 4 x 128), norms 512.
    let layers = 2 * (4 * 128 * 129 + 2 * 128 * 512 + 640 + 4 * 128);
    assert_eq!(tiny.num_params(), 128 * 1064 + 129 * 1000 + layers + 512);
    let mini = BertConfig::bert_mini(1000);
    assert_eq!(
        (
            mini.n_layers,
            mini.d_model,
            mini.n_heads,
            mini.d_ff,
            mini.seq_len
        ),
        (4, 256, 4, 1024, 128)
    );
}

#[test]
fn an_untrained_network_guesses_uniformly() {
    let (source, device) = (source(), Device::flex());
    let model = small(source.vocab_size()).init(1, &device).expect("valid");
    let loss = model.evaluate(source.evaluation());
    assert!(
        (loss - (source.vocab_size() as f64).ln()).abs() < 0.5,
        "{loss}"
    );
    let predicted = model.predict(&source.evaluation()[0]);
    assert_eq!(predicted.len(), source.evaluation()[0].targets.len());
    assert!(
        predicted
            .iter()
            .all(|&token| (token as usize) < source.vocab_size())
    );
}

#[test]
fn a_batch_is_learnt_by_heart() {
    let (source, device) = (source(), Device::flex().autodiff());
    let mut model = small(source.vocab_size()).init(1, &device).expect("valid");
    let mut optimizer = AdamWConfig::new().init();
    let batch = source.batch(0);
    for _ in 0..150 {
        let gradients = GradientsParams::from_grads(model.forward_loss(&batch).backward(), &model);
        model = optimizer.step(3e-3, model, gradients);
    }
    let loss = model.evaluate(std::slice::from_ref(&batch));
    assert!(loss < 0.1, "{loss}");
    assert_eq!(model.valid().predict(&batch), batch.targets);
}

#[test]
fn what_is_visible_is_used() {
    let (source, device) = (source(), Device::flex().autodiff());
    let mut model = small(source.vocab_size()).init(1, &device).expect("valid");
    let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).init();
    for step in 0..250 {
        let gradients =
            GradientsParams::from_grads(model.forward_loss(&source.batch(step)).backward(), &model);
        model = optimizer.step(3e-3, model, gradients);
    }
    let (loss, floor) = (
        model.evaluate(source.evaluation()),
        source.floor().expect("known"),
    );
    assert!(loss < source.unigram_loss() - 0.3 && loss > floor, "{loss}");
}

#[test]
fn sizes_that_make_no_network_are_refused() {
    let tiny = BertConfig::bert_tiny(64);
    let device = Device::flex();
    let refused = |config: BertConfig| config.init(0, &device).map(|_| ()).expect_err("no network");
    assert_eq!(
        refused(BertConfig {
            n_heads: 3,
            ..tiny.clone()
        }),
        BertError::Heads {
            n_heads: 3,
            d_model: 128
        }
    );
    assert_eq!(
        refused(BertConfig {
            n_layers: 0,
            ..tiny.clone()
        }),
        BertError::Zero("n_layers")
    );
    assert_eq!(
        refused(BertConfig {
            dropout: 1.0,
            ..tiny
        }),
        BertError::Dropout(1.0)
    );
}
