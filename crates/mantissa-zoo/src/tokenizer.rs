//! Byte-level byte-pair tokenizers: trained on a text, or read from a `tokenizer.json`.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::source::SPECIAL_TOKENS;
use crate::text::TextError;

/// Smallest vocabulary that writes every text: the special tokens and one token for each byte.
pub(crate) const BYTES_VOCABULARY: usize = SPECIAL_TOKENS + 256;

/// Lines that are encoded at a time: enough to spread over threads, few enough to keep memory low.
const LINES_AT_A_TIME: usize = 4096;

/// A tokenizer and what masking needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct TextTokenizer {
    inner: Tokenizer,
    pub(crate) mask_token: i32,
    pub(crate) vocab_size: usize,
}

impl TextTokenizer {
    /// Learns up to `vocab_size` tokens from a text: `[PAD]`, `[MASK]`, every byte, then merges of frequent neighbours.
    /// Ties between equally frequent pairs go to the pair of lowest ids, so the same text gives the same tokenizer.
    pub(crate) fn train(text: &str, vocab_size: usize) -> Result<Self, TextError> {
        if vocab_size < BYTES_VOCABULARY {
            return Err(TextError::VocabularyTooSmall {
                vocab_size,
                least: BYTES_VOCABULARY,
            });
        }
        let mut inner = Tokenizer::new(BPE::default());
        // Without a prefix space and with offsets untouched, decoding gives the text back.
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
        inner.with_decoder(Some(ByteLevel::new(false, false, true)));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(
                ["[PAD]", "[MASK]"]
                    .map(|name| AddedToken::from(name, true))
                    .to_vec(),
            )
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
            .build();
        // The special names are learnt only when training ends, so a text that contains them is not mistaken here.
        inner
            .train(
                &mut TrainerWrapper::from(trainer),
                text.split_inclusive('\n'),
            )
            .map_err(|error| TextError::TokenizerTraining(error.to_string()))?;
        Self::adopt(inner).map_err(TextError::TokenizerTraining)
    }

    /// Reads a `tokenizer.json`; it must have a `[MASK]` token.
    pub(crate) fn load(path: &Path) -> Result<Self, TextError> {
        let bytes = std::fs::read(path).map_err(|source| TextError::Read {
            path: path.into(),
            source,
        })?;
        Tokenizer::from_bytes(bytes)
            .map_err(|error| error.to_string())
            .and_then(Self::adopt)
            .map_err(|reason| TextError::Tokenizer {
                path: path.into(),
                reason,
            })
    }

    fn adopt(mut inner: Tokenizer) -> Result<Self, String> {
        let mask = inner
            .token_to_id("[MASK]")
            .ok_or("it has no [MASK] token")?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(mask);
        inner
            .with_truncation(None)
            .map_err(|error| error.to_string())?;
        inner.with_padding(None);
        // A text that spells "[MASK]" must not be able to mask itself.
        inner.set_encode_special_tokens(true);
        let token =
            |id: u32| i32::try_from(id).map_err(|_| format!("its token id {id} is too large"));
        Ok(Self {
            inner,
            mask_token: token(mask)?,
            vocab_size: token(largest)? as usize + 1,
        })
    }

    /// The token ids of a text. Lines are encoded one by one, so no token spans a line break and what follows it.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<i32>, String> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let mut tokens = Vec::new();
        for lines in lines.chunks(LINES_AT_A_TIME) {
            let encodings = self
                .inner
                .encode_batch_fast(lines.to_vec(), false)
                .map_err(|error| error.to_string())?;
            tokens.extend(
                encodings
                    .iter()
                    .flat_map(|encoding| encoding.get_ids())
                    .map(|&id| id as i32),
            );
        }
        Ok(tokens)
    }

    /// The text of token ids, special tokens included; ids that do not exist are left out.
    pub(crate) fn decode(&self, tokens: &[i32]) -> String {
        let ids: Vec<u32> = tokens
            .iter()
            .filter_map(|&token| u32::try_from(token).ok())
            .collect();
        self.inner.decode(&ids, false).unwrap_or_default()
    }

    /// Writes `tokenizer.json` whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TextError> {
        let write = || -> std::io::Result<()> {
            let json = self.inner.to_string(false).map_err(std::io::Error::other)?;
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(json.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|source| TextError::Write {
            path: path.into(),
            source,
        })
    }
}
