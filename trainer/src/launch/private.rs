//! Owns the secret of a run that was started without one: a file nobody else can read; never touches its meaning.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::cluster::token::Token;

/// A token file in a folder of its own, 0600 in 0700; both are removed when this is dropped.
#[derive(Debug)]
pub struct PrivateToken {
    folder: PathBuf,
    file: PathBuf,
}

impl PrivateToken {
    /// Makes the folder below `parent` and a fresh token in it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn create(parent: &Path) -> Result<Self, LaunchError> {
        let folder = parent.join(format!("jazari-{}", random_name()?));
        let advice = "set TMPDIR to a folder that you can write to, or pass --token";
        let action = format!("make the folder {}", folder.display());
        DirBuilder::new().mode(0o700).create(&folder).map_err(LaunchError::system(action, advice))?;
        // From here on dropping it cleans up.
        let token = Self { file: folder.join("token"), folder };
        Token::generate(&token.file)?;
        Ok(token)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for PrivateToken {
    fn drop(&mut self) {
        // What cannot be removed is a secret of a run that is over.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A name that no other run has: 16 hexadecimal digits.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn random_name() -> Result<String, LaunchError> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(LaunchError::system("read /dev/urandom", "pass --token and --run-id"))?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_token_is_private_random_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (PrivateToken::create(dir.path()).unwrap(), PrivateToken::create(dir.path()).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&one.folder), mode(one.path())), (0o700, 0o600));
        assert_ne!(fs::read(one.path()).unwrap(), fs::read(two.path()).unwrap());
        Token::read(one.path()).unwrap();
        drop((one, two));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let error = PrivateToken::create(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent") && error.ends_with("pass --token"), "{error}");
    }
}
