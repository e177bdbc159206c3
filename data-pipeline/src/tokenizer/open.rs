//! Owns reading a tokenizer.json with limits and refusing what it cannot handle; never touches texts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::models::ModelWrapper;
use tokenizers::{DecoderWrapper, Model};

use super::alphabet::Spelling;
use super::error::TokenizerError;
use super::files::TOKENIZER_FILE;
use super::special::{Roles, read_roles};
use super::words::Splitter;
use super::{Tokenizer, fenced};

/// Largest tokenizer file in bytes; the largest in use have about 35 MB.
pub const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

pub(super) fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() };
    let bytes = read_limited(&path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    parse(&bytes, &path, |id_of| read_roles(folder, id_of))
}

/// A tokenizer from the text of a tokenizer.json that is called `path` in messages.
pub(super) fn parse(
    bytes: &[u8],
    path: &Path,
    roles: impl FnOnce(&dyn Fn(&str) -> Option<u32>) -> Result<Roles, TokenizerError>,
) -> Result<Tokenizer, TokenizerError> {
    let path = path.to_owned();
    let malformed = |reason: String| TokenizerError::Malformed { path: path.clone(), reason };
    super::guard::check(bytes).map_err(malformed)?;
    let mut library =
        fenced("read", || tokenizers::Tokenizer::from_bytes(bytes)).map_err(|error| malformed(reason_of(error)))?;
    // Saved cutting or filling lengths belong to someone else's batches.
    library.with_padding(None);
    library.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
    let spelling = check_kind(&library).map_err(|what| TokenizerError::Unsupported { path: path.clone(), what })?;
    let vocab_size = vocab_size(&library).map_err(malformed)?;
    let mut plain = library.clone();
    plain.set_encode_special_tokens(true);
    let roles = roles(&|token| library.token_to_id(token))?;
    let roles = Roles { unknown: roles.unknown.or_else(|| unknown_of(&library)), ..roles };
    let mut tokenizer = Tokenizer {
        splitter: Splitter::of(&plain),
        library,
        plain,
        digest: hex(&Sha256::digest(bytes)),
        vocab_size,
        spelling,
        roles,
        begins_with_bos: false,
        path: path.clone(),
    };
    let (with, without) = (tokenizer.encode("a", true)?, tokenizer.encode("a", false)?);
    tokenizer.begins_with_bos =
        roles.bos.is_some() && with.first() == roles.bos.as_ref() && with.first() != without.first();
    Ok(tokenizer)
}

/// Reads a file of at most [`MAX_TOKENIZER_BYTES`].
pub(super) fn read_limited(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    // A pipe would keep its reader waiting, and some devices have no end.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(TokenizerError::io(path, "read")(source));
    }
    let file = File::open(path).map_err(TokenizerError::io(path, "read"))?;
    let mut bytes = Vec::new();
    // The length that a file reports need not be the one it has.
    file.take(MAX_TOKENIZER_BYTES + 1).read_to_end(&mut bytes).map_err(TokenizerError::io(path, "read"))?;
    if bytes.len() as u64 > MAX_TOKENIZER_BYTES {
        let size = std::fs::metadata(path).map_or(bytes.len() as u64, |meta| meta.len());
        return Err(TokenizerError::TooLarge { path: path.to_owned(), bytes: size, limit: MAX_TOKENIZER_BYTES });
    }
    Ok(bytes)
}

fn reason_of(error: TokenizerError) -> String {
    match error {
        TokenizerError::Failed { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// How the vocabulary spells text, or why it is not supported.
fn check_kind(library: &tokenizers::Tokenizer) -> Result<Spelling, String> {
    match library.get_model() {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|p| p > 0.0) => {
            return Err("its BPE drops merges at random (`dropout`), so the same text has many encodings".to_owned());
        }
        ModelWrapper::BPE(_) | ModelWrapper::Unigram(_) => {}
        ModelWrapper::WordPiece(_) => return Err("WordPiece does not keep the spaces of a text".to_owned()),
        ModelWrapper::WordLevel(_) => return Err("a word list cannot spell unknown words".to_owned()),
    }
    let decoders = match library.get_decoder() {
        Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    for decoder in decoders {
        match decoder {
            DecoderWrapper::ByteLevel(_) => return Ok(Spelling::ByteLevel),
            DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_) | DecoderWrapper::Replace(_) => {
                return Ok(Spelling::SentencePiece);
            }
            _ => {}
        }
    }
    Err("its decoder is neither ByteLevel nor Metaspace, Replace or ByteFallback".to_owned())
}

/// Largest id plus one. A single id far outside would make every table as large as it says.
fn vocab_size(library: &tokenizers::Tokenizer) -> Result<usize, String> {
    let vocabulary = library.get_vocab(true);
    if vocabulary.contains_key("") && matches!(library.get_model(), ModelWrapper::Unigram(_)) {
        return Err("its vocabulary has an empty token, which can be repeated for ever".to_owned());
    }
    let largest = vocabulary.values().max().ok_or("its vocabulary is empty")?;
    let size = *largest as usize + 1;
    let limit = 2 * vocabulary.len() + 1024;
    if size > limit {
        Err(format!("id {largest} is far outside a vocabulary of {}", vocabulary.len()))
    } else {
        Ok(size)
    }
}

fn unknown_of(library: &tokenizers::Tokenizer) -> Option<u32> {
    match library.get_model() {
        ModelWrapper::BPE(bpe) => bpe.token_to_id(bpe.unk_token.as_deref()?),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
