//! Owns the shared secret of a run: its file, its permissions, the keys made of it; never touches sockets.

use std::fmt;
use std::path::Path;

use super::error::ClusterError;
use crate::secret_file::{self, SecretFileError, fill_random};

/// Random bytes of a token made by [`Token::generate`]: 256 bits.
const GENERATED_BYTES: usize = 32;
/// Largest token file in bytes; a real one is under 100.
const MAX_FILE_BYTES: u64 = 4096;
/// Digits of 4 bits that make 128 bits.
const MIN_HEX_DIGITS: usize = 32;
/// Characters of at most 6 bits (base64) that make 128 bits.
const MIN_TEXT_CHARACTERS: usize = 22;
/// A secret of 128 bits never has fewer different characters; `aaaa...` has.
const MIN_DIFFERENT_CHARACTERS: usize = 8;

/// A token file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token file {path}: {what}; {advice}")]
pub struct TokenError {
    /// The file.
    pub path: String,
    /// What is wrong with it. Never the secret itself.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl TokenError {
    fn new(path: &Path, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), what: what.into(), advice: advice.into() }
    }
}

impl From<SecretFileError> for TokenError {
    fn from(SecretFileError { path, what, advice }: SecretFileError) -> Self {
        Self { path, what, advice }
    }
}

impl From<TokenError> for ClusterError {
    fn from(error: TokenError) -> Self {
        Self::Refused { what: format!("token file {}: {}", error.path, error.what), advice: error.advice }
    }
}

/// The secret that every process of a run shares. Whoever holds it can join the run.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// Reads a token: one line of at least 32 hexadecimal digits or 22 other visible characters.
    ///
    /// The file must be a regular file (no link) of this user that nobody else may read or write, as ssh asks of keys.
    ///
    /// # Errors
    /// When the file cannot be read, is not private, or holds less than 128 bits.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let bytes = secret_file::read(path, MAX_FILE_BYTES, "one line of secret text")?;
        Self::parse(&bytes)
            .map_err(|what| TokenError::new(path, what, "make a new one: 32 random bytes as hexadecimal"))
    }

    /// Writes a new token of 256 random bits to a file that must not exist yet, readable by this user only.
    ///
    /// # Errors
    /// When the file exists or cannot be written; nothing is left behind then.
    pub fn generate(path: &Path) -> Result<Self, TokenError> {
        let mut random = [0u8; GENERATED_BYTES];
        fill_random(&mut random).map_err(|e| {
            TokenError::new(path, format!("the system gives no random bytes: {e}"), "try again, or check the kernel")
        })?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        secret_file::create(path, format!("{text}\n").as_bytes())?;
        Ok(Self(text.into_bytes()))
    }

    /// A key for one purpose, from which neither the token nor the key of another purpose can be computed (BLAKE3 key
    /// derivation).
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(&format!("jazari cluster token, version 1, {purpose}"), &self.0)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line = bytes.trim_ascii();
        if line.is_empty() {
            return Err("it is empty".to_owned());
        }
        if !line.iter().all(u8::is_ascii_graphic) {
            return Err("it is not one line of visible ASCII characters".to_owned());
        }
        let is_hex = line.iter().all(u8::is_ascii_hexdigit);
        let needed = if is_hex { MIN_HEX_DIGITS } else { MIN_TEXT_CHARACTERS };
        if line.len() < needed {
            let found = line.len();
            return Err(format!("it has {found} characters, {needed} are needed for 128 bits"));
        }
        let mut different = line.to_vec();
        different.sort_unstable();
        different.dedup();
        if different.len() < MIN_DIFFERENT_CHARACTERS {
            return Err(format!("it has only {} different characters and is easily guessed", different.len()));
        }
        Ok(Self(line.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use rustix::fs::Mode;

    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789abcdef\n";

    fn file(dir: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = dir.path().join("token");
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_generated_token_is_private_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = Token::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let read = Token::read(&path).unwrap();
        assert_eq!(made.derive("control"), read.derive("control"));
        assert_eq!(fs::read_to_string(&path).unwrap().trim().len(), 64);
        let other = Token::generate(&dir.path().join("other")).unwrap();
        assert_ne!(made.derive("control"), other.derive("control"));
        assert!(Token::generate(&path).unwrap_err().to_string().contains("exists already"));
    }

    #[test]
    fn files_that_others_may_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o666] {
            let error = Token::read(&file(&dir, GOOD, mode)).unwrap_err();
            assert!(error.what.contains(&format!("{mode:03o}")) && error.advice.contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            Token::read(&file(&dir, GOOD, mode)).unwrap();
        }
    }

    #[test]
    fn links_folders_pipes_and_missing_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, GOOD, 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(Token::read(&link).unwrap_err().what.contains("symbolic link"));
        assert!(Token::generate(&link).unwrap_err().what.contains("exists already"));
        assert!(Token::read(dir.path()).unwrap_err().what.contains("no regular file"));
        assert!(Token::read(&dir.path().join("none")).unwrap_err().what.contains("no such file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(Token::read(&pipe).unwrap_err().what.contains("no regular file"));
    }

    #[test]
    fn weak_tokens_are_refused_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x1".repeat(3000);
        for (text, why) in [
            ("", "empty"),
            (" \n", "empty"),
            ("0123456789abcdef0123456789abcde", "31 characters, 32 are needed"),
            ("correct-horse-battery", "21 characters, 22 are needed"),
            (&"ab".repeat(40), "easily guessed"),
            ("0123456789abcdef\n0123456789abcdef\n", "one line"),
            ("correct horse battery staple", "one line"),
            (&long, "larger than 4096"),
        ] {
            let error = Token::read(&file(&dir, text, 0o600)).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            let secret = text.trim();
            assert!(secret.is_empty() || !error.contains(secret), "{error}");
        }
        Token::read(&file(&dir, "correct-horse-battery-s\n", 0o600)).unwrap();
    }

    #[test]
    fn debug_and_errors_hide_the_secret_and_purposes_differ() {
        let token = Token::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(format!("{token:?}"), "Token(hidden)");
        assert_ne!(token.derive("control"), token.derive("data"));
        assert_eq!(token.derive("data"), Token::parse(GOOD.trim().as_bytes()).unwrap().derive("data"));
        let refused: ClusterError = TokenError::new(Path::new("t"), "w", "a").into();
        assert_eq!(refused.to_string(), "token file t: w; a");
    }
}
