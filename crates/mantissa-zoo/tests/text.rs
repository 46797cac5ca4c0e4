//! Text becomes masked sequences that another run reproduces, and files that cannot are refused in a sentence.

use std::path::PathBuf;

use mantissa_zoo::{
    BatchShape, BatchShapeError, MASK_TOKEN, MaskedSource, TextConfig, TextCorpus, TextError,
    Tokenization, Validation,
};
use tempfile::TempDir;

const SHAPE: BatchShape = BatchShape {
    batch_size: 4,
    seq_len: 16,
};

fn file(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("the test's own folder is writable");
    path
}

/// Some thousand lines in which many pairs are equally frequent.
fn prose() -> String {
    let words = [
        "rain", "falls", "on", "the", "grey", "roof", "ünder", "clouds", "näher", "than", "before",
        "it's",
    ];
    let line = |i: usize| {
        (0..9)
            .map(|j| words[(i * 7 + j * j * 5 + i / 3 * j) % words.len()])
            .collect::<Vec<_>>()
            .join(" ")
    };
    (0..1500).map(|i| format!("{} {i}.\n", line(i))).collect()
}

fn open(config: &TextConfig) -> TextCorpus {
    TextCorpus::open(config).expect("a usable text")
}

#[test]
fn the_same_text_gives_the_same_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TextConfig {
        tokenization: Tokenization::BytePair { vocab_size: 600 },
        ..TextConfig::new(file(&folder, "text", prose()), SHAPE)
    };
    let json = |name: &str| {
        let path = folder.path().join(name);
        open(&config).save_tokenizer(&path).expect("writable");
        std::fs::read_to_string(path).expect("written")
    };
    let first = json("a.json");
    for _ in 0..4 {
        assert!(json("b.json") == first);
    }
}

#[test]
fn a_saved_tokenizer_gives_the_same_batches() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = TextConfig {
        seed: 9,
        ..TextConfig::new(file(&folder, "text", prose()), SHAPE)
    };
    let corpus = open(&config);
    let path = folder.path().join("tokenizer.json");
    corpus.save_tokenizer(&path).expect("writable");
    let resumed = open(&TextConfig {
        tokenization: Tokenization::Saved(path),
        ..config.clone()
    });
    assert_eq!(resumed.vocab_size(), corpus.vocab_size());
    for step in [0, 1, 17, u64::MAX] {
        assert_eq!(resumed.batch(step), corpus.batch(step));
    }
    assert_eq!(resumed.evaluation(), corpus.evaluation());
    let other = open(&TextConfig { seed: 10, ..config });
    assert_ne!(other.batch(0), corpus.batch(0));
    assert_eq!(other.evaluation(), corpus.evaluation());
}

#[test]
fn bytes_are_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = prose();
    let config = TextConfig {
        tokenization: Tokenization::Bytes,
        ..TextConfig::new(file(&folder, "text", &text), SHAPE)
    };
    let corpus = open(&config);
    assert_eq!(corpus.vocab_size(), 258);
    assert!(
        corpus
            .training_tokens()
            .abs_diff(text.len() - text.len() / 10)
            < 4
    );
}

#[test]
fn unmasked_sequences_are_pieces_of_the_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = prose();
    let corpus = open(&TextConfig::new(file(&folder, "text", &text), SHAPE));
    let mut batch = corpus.batch(3);
    for (&position, &target) in batch.positions.iter().zip(&batch.targets) {
        assert_eq!(batch.tokens[position as usize], MASK_TOKEN);
        batch.tokens[position as usize] = target;
    }
    for sequence in batch.tokens.chunks(SHAPE.seq_len) {
        let piece = corpus.decode(sequence);
        // A window may begin or end inside a character.
        assert!(text.contains(piece.trim_matches('\u{fffd}')), "{piece:?}");
    }
}

#[test]
fn a_text_that_spells_a_special_token_does_not_mask_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let corpus = open(&TextConfig::new(
        file(&folder, "text", "a [MASK] or a [PAD]\n".repeat(200)),
        SHAPE,
    ));
    for step in 0..20 {
        let batch = corpus.batch(step);
        assert_eq!(
            batch.tokens.iter().filter(|&&t| t == MASK_TOKEN).count(),
            batch.positions.len()
        );
        assert!(batch.targets.iter().all(|&t| t > MASK_TOKEN));
    }
}

#[test]
fn validation_can_be_a_file_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let validation = file(&folder, "validation", "roof roof roof\n".repeat(40));
    let config = TextConfig {
        validation: Validation::File(validation),
        ..TextConfig::new(file(&folder, "text", prose()), SHAPE)
    };
    let corpus = open(&config);
    let mut tokens = corpus.evaluation()[0].tokens[..SHAPE.seq_len].to_vec();
    tokens.retain(|&token| token != MASK_TOKEN);
    assert!(corpus.decode(&tokens).chars().all(|c| "rof \n".contains(c)));
    assert!(corpus.unigram_loss() > 0.0 && corpus.floor().is_none());
}

fn refusal(config: &TextConfig) -> (TextError, String) {
    let error = TextCorpus::open(config).expect_err("not a usable text");
    let sentence = error.to_string();
    assert!(!sentence.contains('\n'));
    (error, sentence)
}

#[test]
fn unusable_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |path: PathBuf| TextConfig::new(path, SHAPE);

    let (error, sentence) = refusal(&of(folder.path().join("nowhere.txt")));
    assert!(matches!(error, TextError::Read { .. }) && sentence.contains("nowhere.txt"));
    let (error, _) = refusal(&of(folder.path().into()));
    assert!(matches!(error, TextError::Read { .. }));
    let (error, _) = refusal(&of(file(&folder, "empty", "")));
    assert!(matches!(error, TextError::Empty(_)));
    let (error, sentence) = refusal(&of(file(&folder, "latin1", b"caf\xe9 au lait")));
    assert!(matches!(error, TextError::NotUtf8 { offset: 3, .. }) && sentence.contains("offset 3"));
    let (error, _) = refusal(&of(file(&folder, "short", "too short")));
    assert!(matches!(
        error,
        TextError::TooShort {
            part: "training",
            needed: 64,
            ..
        }
    ));
    let one_byte_of_validation = TextConfig {
        validation: Validation::File(file(&folder, "validation", "a")),
        ..of(file(&folder, "text", prose()))
    };
    let (error, _) = refusal(&one_byte_of_validation);
    assert!(matches!(
        error,
        TextError::TooShort {
            part: "validation",
            tokens: 1,
            needed: 16,
            ..
        }
    ));
}

#[test]
fn unusable_tokenizers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |tokenization| TextConfig {
        tokenization,
        ..TextConfig::new(file(&folder, "text", prose()), SHAPE)
    };
    let (error, _) = refusal(&of(Tokenization::BytePair { vocab_size: 100 }));
    assert!(matches!(
        error,
        TextError::VocabularyTooSmall {
            vocab_size: 100,
            least: 258
        }
    ));
    let (error, _) = refusal(&of(Tokenization::Saved(file(
        &folder,
        "cut.json",
        "{\"version\":",
    ))));
    assert!(matches!(error, TextError::Tokenizer { .. }));
    let no_mask = r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    let (error, sentence) = refusal(&of(Tokenization::Saved(file(
        &folder,
        "no_mask.json",
        no_mask,
    ))));
    assert!(
        matches!(error, TextError::Tokenizer { .. }) && sentence.contains("[MASK]"),
        "{sentence}"
    );
}

#[test]
fn shapes_that_hide_or_show_nothing_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "text", prose());
    let (error, _) = refusal(&TextConfig::new(
        &path,
        BatchShape {
            batch_size: 0,
            seq_len: 16,
        },
    ));
    assert!(matches!(
        error,
        TextError::Shape(BatchShapeError::EmptyBatch)
    ));
    let (error, _) = refusal(&TextConfig::new(
        &path,
        BatchShape {
            batch_size: 1,
            seq_len: 1,
        },
    ));
    assert!(matches!(
        error,
        TextError::Shape(BatchShapeError::ShortSequence(1))
    ));
}
