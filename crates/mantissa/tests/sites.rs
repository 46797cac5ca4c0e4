//! The products of every layer, by their names, in the order in which the forward pass computes them.

use burn::module::Module;
use burn::nn::PaddingConfig1d;
use burn::tensor::Device;
use mantissa::nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use mantissa::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d,
    ConvTranspose1dConfig, ConvTranspose2d, ConvTranspose2dConfig,
};
use mantissa::nn::transformer::{
    TransformerDecoder, TransformerDecoderConfig, TransformerEncoder, TransformerEncoderConfig,
};
use mantissa::nn::{
    BiGru, BiGruConfig, BiLstm, BiLstmConfig, Embedding, EmbeddingConfig, Gru, GruConfig, Linear,
    LinearConfig, Lstm, LstmConfig,
};
use mantissa::plan::SiteKind;

#[derive(Module, Debug)]
struct Everything {
    embedding: Embedding,
    linear: Linear,
    line: Conv1d,
    plane: Vec<Conv2d>,
    space: Conv3d,
    wide_line: ConvTranspose1d,
    wide_plane: ConvTranspose2d,
    lstm: Lstm,
    coupled: Lstm,
    both: BiLstm,
    gru: Gru,
    both_gru: BiGru,
    attention: MultiHeadAttention,
    encoder: TransformerEncoder,
    decoder: TransformerDecoder,
}

impl Everything {
    fn new(device: &Device) -> Self {
        let plane = || Conv2dConfig::new([2, 2], [3, 3]).init(device);
        Self {
            embedding: EmbeddingConfig::new(5, 4).init(device),
            linear: LinearConfig::new(4, 4).init(device),
            line: Conv1dConfig::new(2, 2, 3)
                .with_padding(PaddingConfig1d::Same)
                .init(device),
            plane: vec![plane(), plane()],
            space: Conv3dConfig::new([2, 2], [3, 3, 3]).init(device),
            wide_line: ConvTranspose1dConfig::new([2, 2], 3).init(device),
            wide_plane: ConvTranspose2dConfig::new([2, 2], [3, 3]).init(device),
            lstm: LstmConfig::new(4, 4, true).init(device),
            coupled: LstmConfig::new(4, 4, true)
                .with_input_forget(true)
                .init(device),
            both: BiLstmConfig::new(4, 4, true).init(device),
            gru: GruConfig::new(4, 4, true).init(device),
            both_gru: BiGruConfig::new(4, 4, true).init(device),
            attention: MultiHeadAttentionConfig::new(4, 2).init(device),
            encoder: TransformerEncoderConfig::new(4, 8, 2, 1).init(device),
            decoder: TransformerDecoderConfig::new(4, 8, 2, 1).init(device),
        }
    }
}

/// `path.name` for each name.
fn under<'a>(path: &'a str, names: &'a [String]) -> impl Iterator<Item = String> + 'a {
    names.iter().map(move |name| format!("{path}.{name}"))
}

fn words(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_layers_products_in_forward_order() {
    let gates = |names: &[&str]| -> Vec<String> {
        let two = words(&["input_transform", "hidden_transform"]);
        let names = names.iter().map(|name| format!("{name}_gate"));
        names
            .flat_map(|gate| under(&gate, &two).collect::<Vec<_>>())
            .collect()
    };
    let lstm = gates(&["input", "forget", "output", "cell"]);
    let gru = gates(&["update", "reset", "new"]);
    let attention = words(&["query", "key", "value", "scores", "context", "output"]);
    let feed_forward = words(&["linear_inner", "linear_outer"]);

    let mut expected = words(&[
        "embedding",
        "linear",
        "line",
        "plane.0",
        "plane.1",
        "space",
        "wide_line",
        "wide_plane",
    ]);
    expected.extend(under("lstm", &lstm));
    expected.extend(under("coupled", &gates(&["input", "output", "cell"])));
    expected.extend(under("both.forward", &lstm));
    expected.extend(under("both.reverse", &lstm));
    expected.extend(under("gru", &gru));
    expected.extend(under("both_gru.forward", &gru));
    expected.extend(under("both_gru.reverse", &gru));
    expected.extend(under("attention", &attention));
    expected.extend(under("encoder.layers.0.mha", &attention));
    expected.extend(under("encoder.layers.0.pwff", &feed_forward));
    expected.extend(under("decoder.layers.0.self_attn", &attention));
    expected.extend(under("decoder.layers.0.cross_attn", &attention));
    expected.extend(under("decoder.layers.0.pwff", &feed_forward));

    let sites = mantissa::sites(&Everything::new(&Device::flex()));
    let names: Vec<String> = sites.iter().map(|site| site.name.clone()).collect();
    assert_eq!(names, expected);
    for site in &sites {
        let kind = match site.name.rsplit('.').next() {
            Some("scores" | "context") => SiteKind::Matmul,
            Some("embedding") => SiteKind::Embedding,
            _ => SiteKind::Linear,
        };
        assert_eq!(site.kind, kind, "{}", site.name);
    }
}
