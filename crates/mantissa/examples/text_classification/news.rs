//! Short news of four kinds, as AG's: words of their kind, now and then of another, and words that all kinds have.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::training::Draws;

/// Words of the longest news, with the mark of its beginning.
pub const LENGTH: usize = 16;

/// What news are about.
pub const KINDS: [&str; 4] = ["world", "sports", "business", "science"];

const PADDING: &str = "";
const BEGINNING: &str = "<news>";
const WORDS: [[&str; 8]; 4] = [
    [
        "minister", "treaty", "border", "election", "embassy", "summit", "vote", "talks",
    ],
    [
        "team", "season", "coach", "goal", "league", "match", "champion", "race",
    ],
    [
        "shares", "profit", "bank", "merger", "prices", "market", "oil", "sales",
    ],
    [
        "planet", "gene", "network", "robot", "fossil", "laser", "vaccine", "comet",
    ],
];
const REST: [&str; 12] = [
    "the", "of", "new", "in", "and", "says", "for", "after", "with", "first", "on", "as",
];

/// Words with numbers: the place of each in this list.
pub fn vocabulary() -> Vec<&'static str> {
    let marks = [PADDING, BEGINNING].into_iter();
    marks
        .chain(WORDS.into_iter().flatten())
        .chain(REST)
        .collect()
}

/// News `sample` and its kind.
pub fn news(sample: u64) -> (String, usize) {
    let mut draws = Draws::of(sample);
    let kind = draws.below(KINDS.len());
    let mut words = vec![BEGINNING];
    for _ in 0..5 + draws.below(LENGTH - 5) {
        words.push(match draws.below(20) {
            0..7 => WORDS[kind][draws.below(8)],
            7..9 => WORDS[draws.below(KINDS.len())][draws.below(8)],
            _ => REST[draws.below(REST.len())],
        });
    }
    (words.join(" "), kind)
}

/// News as numbers of words, where there are none, and their kinds.
pub struct Batch {
    pub words: Tensor<2, Int>,
    pub padding: Tensor<2, Bool>,
    pub kinds: Tensor<1, Int>,
}

/// News `first..first + count`.
pub fn batch(first: u64, count: usize, device: &Device) -> Batch {
    let vocabulary = vocabulary();
    let number = |word: &str| vocabulary.iter().position(|known| *known == word);
    let (mut words, mut kinds) = (Vec::new(), Vec::new());
    for sample in first..first + count as u64 {
        let (text, kind) = news(sample);
        let numbers = text
            .split(' ')
            .map(|word| number(word).unwrap_or_default() as i64);
        words.extend(numbers.chain(std::iter::repeat(0)).take(LENGTH));
        kinds.push(kind as i64);
    }
    let words = Tensor::from_data(TensorData::new(words, [count, LENGTH]), device);
    Batch {
        padding: words.clone().equal_elem(0),
        words,
        kinds: Tensor::from_data(TensorData::new(kinds, [count]), device),
    }
}
