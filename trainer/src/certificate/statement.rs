//! Owns signed statements: an in-toto Statement of any predicate, in an envelope, written and opened; never knows what it
//! says.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CertificateError;
use super::envelope::{Envelope, EnvelopeError, PrivateKey, PublicKey};
use super::subjects::Subject;

/// Kind of statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What a statement may say.
pub trait Predicate: Serialize + DeserializeOwned {
    /// Kind of predicate; its number grows with every change of meaning.
    const TYPE: &'static str;
    /// What such a file is called in errors.
    const WHAT: &'static str;

    /// The public key that signed, PEM.
    fn signer(&self) -> &str;
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The files it speaks for.
    pub subject: Vec<Subject>,
    /// [`Predicate::TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it says.
    pub predicate: P,
}

/// A statement whose signature was checked.
#[derive(Debug, Clone)]
pub struct Opened<P> {
    /// What it says.
    pub statement: Statement<P>,
    /// The key that signed it.
    pub signer: PublicKey,
    /// BLAKE3 of the payload: the name of this very statement.
    pub digest: String,
}

impl<P: Predicate> Statement<P> {
    /// A statement about files.
    pub fn new(subject: Vec<Subject>, predicate: P) -> Self {
        Self { kind: STATEMENT_TYPE.into(), subject, predicate_type: P::TYPE.into(), predicate }
    }

    /// The text of the signed file.
    pub fn seal(&self, key: &PrivateKey) -> String {
        // Statements are plain data: they always have a JSON form.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let text = serde_json::to_string_pretty(&Envelope::seal(&payload, key)).unwrap_or_default();
        format!("{text}\n")
    }

    /// Reads a signed statement and checks its signature: against `trusted`, or, where nobody is named, against the key that
    /// the statement itself names. `path` is what errors call it.
    ///
    /// # Errors
    /// [`CertificateError::Refused`].
    pub fn open(path: &Path, text: &str, trusted: Option<&PublicKey>) -> Result<Opened<P>, CertificateError> {
        let refused = |source| CertificateError::Refused { path: path.to_owned(), source };
        let malformed = |what: String| refused(EnvelopeError::Malformed(what));
        let envelope = Envelope::parse(text).map_err(refused)?;
        let read = |payload: &[u8]| -> Result<Self, CertificateError> {
            let what = P::WHAT;
            let statement: Self = serde_json::from_slice(payload)
                .map_err(|error| malformed(format!("it is no {what} of this version ({error})")))?;
            if statement.kind != STATEMENT_TYPE || statement.predicate_type != P::TYPE {
                let (found, wanted) = (&statement.predicate_type, P::TYPE);
                return Err(malformed(format!("it is of kind {found:?}, a {what} is of kind {wanted:?}")));
            }
            Ok(statement)
        };
        let signer = match trusted {
            Some(key) => key.clone(),
            None => {
                let unverified = read(&envelope.unverified_payload().map_err(refused)?)?;
                PublicKey::from_pem(unverified.predicate.signer())
                    .ok_or_else(|| malformed("the signer's key is no Ed25519 key".into()))?
            }
        };
        let payload = envelope.open(&signer).map_err(refused)?;
        let statement = read(&payload)?;
        Ok(Opened { statement, signer, digest: blake3::hash(&payload).to_hex().to_string() })
    }
}
