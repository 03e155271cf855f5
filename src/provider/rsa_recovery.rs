//! ClickPay's signature: RSA "private encryption" of the signed string in blocks, checked by rebuilding them.

use crate::event::Digest;

/// A parsed public key, ready for the hot path.
#[derive(Clone, Debug)]
pub struct PublicKey {
    _fingerprint: Digest,
}

impl PublicKey {
    /// PEM of any line width, or the bare base64 of the provider's panel (SubjectPublicKeyInfo; PKCS#1 too).
    ///
    /// # Errors
    /// A sentence that says what is wrong with the key and what to do.
    pub fn parse(_text: &str) -> Result<Self, String> {
        todo!()
    }
    /// SHA-256 of the key's DER.
    pub fn fingerprint(&self) -> Digest {
        todo!()
    }
    /// Modulus length in bits.
    pub fn bits(&self) -> u32 {
        todo!()
    }
}
