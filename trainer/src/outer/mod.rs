//! Owns training across sites that are joined by slow links (DiLoCo): what a site sends, what a coordinator makes of it,
//! and when a round ends; never touches data, and no text or token of a site ever passes through here.
//!
//! Every site trains by itself for H steps and then sends how far its parameters have moved ([`quantise`]). The
//! coordinator averages over the sites and makes an outer step of it ([`average`]); all sites go on from the result.
//! [`desk`] holds the rules of a round, [`serve`] its sockets, [`site`] a site's side of a conversation
//! ([`messages`]), [`sync`] its place in the training loop, [`held`] what a site saves, [`store`] what the coordinator
//! saves.
//!
//! A connection lasts for one exchange, not for a run: nothing is connected while sites train, so nothing can be lost.

pub mod average;
pub mod desk;
pub mod held;
pub mod messages;
pub mod quantise;
pub mod serve;
pub mod site;
pub mod store;
pub mod sync;

use std::path::PathBuf;

use crate::cluster::ClusterError;
use crate::cluster::token::{Token, TokenError};
use crate::durable::FileError;
use crate::tensor_file::TensorFileError;

/// Variable with the path of the file that holds the secret of an outer run.
pub const TOKEN_VARIABLE: &str = "JAZARI_OUTER_TOKEN_FILE";
/// Most sites of an outer run.
pub const MAX_SITES: usize = 256;
/// Longest name of a site, bytes.
pub const MAX_SITE_NAME: usize = 64;

/// Why an outer run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OuterError {
    /// The site does not fit the run, or something is set up wrongly: exit code 2.
    #[error("{what}; {advice}")]
    Refused {
        /// What was found, with both values where two differ.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The coordinator could not be reached for too long: exit code 75.
    #[error("{0}; start the coordinator, check the network, and run the same command again to continue")]
    Unreachable(String),
    /// A stop was asked for while waiting.
    #[error("stopped while waiting for the coordinator; run the same command again to continue")]
    Stopped,
    /// What this process holds cannot be used.
    #[error("{what}; {advice}")]
    Local {
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The coordinator's state on disk is damaged.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What was found, and what to do.
        what: String,
    },
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// Another process of this site is lost.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl OuterError {
    /// For two sides that do not fit.
    pub(crate) fn refused(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), advice: advice.into() }
    }

    /// For what this process holds.
    pub(crate) fn local(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Local { what: what.into(), advice: advice.into() }
    }
}

impl From<TokenError> for OuterError {
    fn from(error: TokenError) -> Self {
        Self::refused(format!("token file {}: {}", error.path, error.what), error.advice)
    }
}

/// Reads the secret: `given`, else the file that [`TOKEN_VARIABLE`] or the variable of a cluster names.
///
/// # Errors
/// When no file is named, or the file is no good secret.
pub fn token(given: Option<PathBuf>) -> Result<Token, OuterError> {
    let named = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = given.or_else(|| named(TOKEN_VARIABLE)).or_else(|| named(crate::assembly::TOKEN_VARIABLE));
    let path = path.ok_or_else(|| {
        OuterError::refused(
            format!("sites need a secret, and {TOKEN_VARIABLE} names no file with one"),
            format!(
                "make one with `(umask 077; head -c 32 /dev/urandom | base64 > token)`, give the coordinator and every \
                 site the same file and set {TOKEN_VARIABLE} to its path"
            ),
        )
    })?;
    Ok(Token::read(&path)?)
}
