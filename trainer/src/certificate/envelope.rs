//! Owns signatures: key files and the signed envelope around a statement; never knows what a statement says.
//!
//! The envelope is DSSE version 1 (secure-systems-lab/dsse, protocol.md). Keys are Ed25519 (RFC 8032) as PEM: private ones
//! in PKCS#8, public ones in SubjectPublicKeyInfo (RFC 8410), which OpenSSL reads and writes too.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable::{self, FileError};
use crate::secret_file::{self, SecretFileError};

/// What the payload is: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Largest key file that is read, bytes; a real one has about 120.
const KEY_LIMIT_BYTES: u64 = 16 << 10;
/// What a private key file holds, in errors.
const PRIVATE_KEY: &str = "an Ed25519 private key in PEM (PKCS#8)";

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The private key's file.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Disk trouble with a public key.
    #[error(transparent)]
    File(#[from] FileError),
    /// The content is no key.
    #[error("{}: this is not {expected}; make a pair of keys with `jazari key new NAME`", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope of a statement.
    #[error("{0}")]
    Malformed(String),
    /// The signature is not that of the key over this payload.
    #[error("the signature does not fit: the statement was changed after signing, or another key signed it")]
    BadSignature,
    /// Nobody signed with the key that is trusted.
    #[error("it is signed with key {found}, not with the key {wanted} that you trust")]
    OtherKey {
        /// Who signed.
        found: String,
        /// Who should have.
        wanted: String,
    },
}

/// A key that signs.
pub struct PrivateKey(SigningKey);

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PrivateKey {
    /// Makes a key from the system's random numbers and writes `path` (mode 0600) and `path.pub`.
    ///
    /// # Errors
    /// When one of the files exists or cannot be written.
    pub fn create(path: &Path) -> Result<(Self, PathBuf), KeyError> {
        let public_path = public_path(path);
        if public_path.exists() {
            return Err(SecretFileError::new(&public_path, "it exists already", "choose another name").into());
        }
        let mut secret = [0u8; 32];
        secret_file::fill_random(&mut secret).map_err(|error| {
            SecretFileError::new(path, format!("the system gives no random bytes: {error}"), "check the kernel")
        })?;
        let key = Self(SigningKey::from_bytes(&secret));
        // The form without the public key: OpenSSL reads no other.
        let pair = KeypairBytes { secret_key: secret, public_key: None };
        let expected = PRIVATE_KEY;
        let pem =
            pair.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::NotAKey { path: path.to_owned(), expected })?;
        secret_file::create(path, pem.as_bytes())?;
        durable::write_atomic(&public_path, key.public().to_pem().as_bytes())?;
        Ok((key, public_path))
    }

    /// Reads a private key; its file must be this user's alone.
    ///
    /// # Errors
    /// When the file is not private or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = secret_file::read(path, KEY_LIMIT_BYTES, PRIVATE_KEY)?;
        let key = std::str::from_utf8(&bytes).ok().and_then(|pem| SigningKey::from_pkcs8_pem(pem.trim()).ok());
        key.map(Self).ok_or_else(|| KeyError::NotAKey { path: path.to_owned(), expected: PRIVATE_KEY })
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

/// Where the public half of a key is written.
pub fn public_path(private: &Path) -> PathBuf {
    let mut name = private.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

impl PublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let expected = "an Ed25519 public key in PEM (the file NAME.pub)";
        let not_a_key = || KeyError::NotAKey { path: path.to_owned(), expected };
        let pem = durable::read_bytes(path, KEY_LIMIT_BYTES)?;
        Self::from_pem(&String::from_utf8(pem).map_err(|_| not_a_key())?).ok_or_else(not_a_key)
    }

    /// A key from its PEM text.
    pub fn from_pem(pem: &str) -> Option<Self> {
        VerifyingKey::from_public_key_pem(pem.trim()).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// The key as PEM text.
    pub fn to_pem(&self) -> String {
        // A key of 32 bytes always encodes.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// SHA-256 of the key's DER form, in hexadecimal: what people compare.
    pub fn id(&self) -> String {
        let der = self.0.to_public_key_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default();
        hex(&Sha256::digest(der))
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signed statement as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<SignatureEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureEntry {
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Signs a payload.
    pub fn seal(payload: &[u8], key: &PrivateKey) -> Self {
        let signature = key.0.sign(&pre_authentication(PAYLOAD_TYPE, payload));
        Self {
            payload_type: PAYLOAD_TYPE.into(),
            payload: BASE64.encode(payload),
            signatures: vec![SignatureEntry { keyid: key.public().id(), sig: BASE64.encode(signature.to_bytes()) }],
        }
    }

    /// Reads an envelope from the text of a file.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let malformed = |error| EnvelopeError::Malformed(format!("this is no signed certificate ({error})"));
        let envelope: Self = serde_json::from_str(text).map_err(malformed)?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let found = &envelope.payload_type;
            return Err(EnvelopeError::Malformed(format!("it holds {found:?}, a certificate holds {PAYLOAD_TYPE:?}")));
        }
        Ok(envelope)
    }

    /// The payload, which nobody has vouched for yet.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`].
    pub fn unverified_payload(&self) -> Result<Vec<u8>, EnvelopeError> {
        let malformed = |error| EnvelopeError::Malformed(format!("its payload is not base64 ({error})"));
        BASE64.decode(&self.payload).map_err(malformed)
    }

    /// The payload, once one of the signatures is found to be that of `key`.
    ///
    /// # Errors
    /// See [`EnvelopeError`].
    pub fn open(&self, key: &PublicKey) -> Result<Vec<u8>, EnvelopeError> {
        let payload = self.unverified_payload()?;
        let signed = pre_authentication(&self.payload_type, &payload);
        let fits = |entry: &SignatureEntry| {
            let bytes = BASE64.decode(&entry.sig).ok()?;
            let signature = Signature::from_slice(&bytes).ok()?;
            key.0.verify_strict(&signed, &signature).ok()
        };
        // The key's name is a hint that nobody signs; with the wrong one it helps to say whose key was expected.
        let wanted = key.id();
        if self.signatures.iter().any(|entry| entry.keyid == wanted && fits(entry).is_some()) {
            return Ok(payload);
        }
        match self.signatures.iter().find(|entry| entry.keyid != wanted) {
            Some(other) if self.signatures.iter().all(|entry| entry.keyid != wanted) => {
                Err(EnvelopeError::OtherKey { found: other.keyid.clone(), wanted })
            }
            _ => Err(EnvelopeError::BadSignature),
        }
    }
}

/// The bytes that are signed (DSSE, "PAE").
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// The example of the DSSE protocol page.
    #[test]
    fn what_is_signed_is_what_the_protocol_says() {
        let bytes = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    /// RFC 8410, section 10.3: the private key, and the public key that belongs to it.
    #[test]
    fn keys_of_the_standard_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        secret_file::create(&path, pem.as_bytes()).unwrap();
        let key = PrivateKey::read(&path).unwrap();
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(key.public().to_pem(), public);
        assert_eq!(PublicKey::from_pem(public).unwrap(), key.public());
    }

    #[test]
    fn a_new_pair_signs_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("institute");
        let (key, public_path) = PrivateKey::create(&path).unwrap();
        let public = PublicKey::read(&public_path).unwrap();
        let envelope = Envelope::seal(b"{}", &PrivateKey::read(&path).unwrap());
        assert_eq!(envelope.open(&public).unwrap(), b"{}");
        assert_eq!(key.public().id(), public.id());
        assert!(PrivateKey::create(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        let error = PrivateKey::create(&path).err().unwrap().to_string();
        assert!(error.contains("institute.pub: it exists already"), "{error}");
        assert!(PrivateKey::read(&public_path).is_err() && PublicKey::read(&path).is_err());
    }

    #[test]
    fn every_changed_part_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [key, other] = ["a", "b"].map(|name| PrivateKey::create(&dir.path().join(name)).unwrap().0);
        let envelope = Envelope::seal(b"{\"x\":1}", &key);
        assert!(matches!(envelope.open(&other.public()), Err(EnvelopeError::OtherKey { .. })));
        let with = |change: &dyn Fn(&mut Envelope)| {
            let mut changed = envelope.clone();
            change(&mut changed);
            changed.open(&key.public())
        };
        assert!(with(&|e| e.payload = BASE64.encode(b"{\"x\":2}")).is_err());
        assert!(with(&|e| e.payload_type = "text/plain".into()).is_err());
        assert!(with(&|e| e.signatures.clear()).is_err());
        assert!(with(&|e| e.signatures[0].sig = BASE64.encode([0; 64])).is_err());
        assert!(with(&|e| e.signatures[0].sig = "?".into()).is_err());
        assert!(with(&|e| e.payload = "?".into()).is_err());
        let renamed = Envelope { signatures: Envelope::seal(b"{\"x\":1}", &other).signatures, ..envelope.clone() };
        assert!(renamed.open(&key.public()).is_err());
        assert!(Envelope::parse("{\"payload\": \"\"}").is_err());
        let text = serde_json::to_string(&envelope).unwrap();
        assert_eq!(Envelope::parse(&text).unwrap(), envelope);
        assert!(Envelope::parse(&text.replacen('{', "{\"note\":1,", 1)).is_err());
    }
}
