//! ClickPay's signature: RSA "private encryption" of the signed string in blocks, and what it takes to undo it.
//!
//! The string is cut into chunks of at most k-11 bytes (k: the modulus' length in bytes), each chunk padded as
//! PKCS#1 v1.5 type 1 and raised to the private exponent. There is no hash, so the strictness of the padding check
//! is the whole scheme: `PublicKey::recover` refuses whatever a careful signer could not have written.
//!
//! Keys are parsed once, with the `rsa` crate; the public operation that runs for every notification is
//! `crypto-bigint`'s fixed-width Montgomery arithmetic, more than twice as fast (`openssl` is the oracle in the tests).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U1024, U1536, U2048, U3072, U4096, Uint};
use rsa::RsaPublicKey;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use subtle::ConstantTimeEq;

use super::SignedString;
use crate::event::Digest;

/// What PKCS#1 v1.5 adds to a chunk at least: `00 01`, eight `FF` and `00`.
const PADDING_BYTES: usize = 11;
/// Where the vendor's PHP cuts, whatever the key: k-11 of a 1024-bit one.
const SAMPLE_CHUNK_BYTES: usize = 117;
const BITS: std::ops::RangeInclusive<usize> = 1024..=4096;
/// Below, no hash and a small exponent let anybody write blocks whose root is easy to take.
const SMALLEST_EXPONENT: u64 = 65537;

/// A parsed public key, ready for the hot path. A cheap clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    fingerprint: Digest,
    bits: u32,
    /// Length of the modulus, of a block and of a padded chunk.
    block_bytes: usize,
    exponent: u64,
    modulus: Modulus,
}

/// The modulus in the narrowest arithmetic that holds it.
#[expect(clippy::large_enum_variant, reason = "one per key, behind an Arc")]
enum Modulus {
    Bits1024(Montgomery<{ U1024::LIMBS }>),
    Bits1536(Montgomery<{ U1536::LIMBS }>),
    Bits2048(Montgomery<{ U2048::LIMBS }>),
    Bits3072(Montgomery<{ U3072::LIMBS }>),
    Bits4096(Montgomery<{ U4096::LIMBS }>),
}

struct Montgomery<const LIMBS: usize>(FixedMontyParams<LIMBS>);

/// What the holder of the private key put into a signature's blocks. It says nothing until it was compared.
pub(super) struct Recovered {
    text: Vec<u8>,
    key: Digest,
}

/// Why a signature holds nothing that this key's owner wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    /// Empty, or not a whole number of blocks.
    #[error("its length does not fit the key")]
    Length,
    /// A block is not below the modulus.
    #[error("a block is out of range")]
    Range,
    /// A block is not `00 01 FF.. 00` with at least eight `FF` and something behind it.
    #[error("a block was not written by this key")]
    Padding,
    /// The blocks were not cut out of one string as a signer cuts.
    #[error("its blocks do not belong together")]
    Cutting,
}

impl PublicKey {
    /// PEM of any line width, or the bare base64 of the provider's panel (SubjectPublicKeyInfo; PKCS#1 too).
    ///
    /// # Errors
    /// A sentence that says what is wrong with the key and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let der = der_of(text)?;
        let key = RsaPublicKey::from_public_key_der(&der)
            .map_err(drop)
            .or_else(|()| RsaPublicKey::from_pkcs1_der(&der).map_err(drop));
        let key = key.map_err(|()| {
            "this is not an RSA public key of at most 4096 bits: copy the platform's public key from the provider's \
             panel, whole"
                .to_owned()
        })?;
        Self::new(&key)
    }

    fn new(key: &RsaPublicKey) -> Result<Self, String> {
        let bits = key.n().bits();
        if !BITS.contains(&bits) {
            return Err(format!(
                "the key has {bits} bits, 1024 to 4096 are allowed: ask the provider for a longer one"
            ));
        }
        let exponent = key.e().to_bytes_be().iter().fold(0_u64, |e, byte| e << 8 | u64::from(*byte));
        if exponent < SMALLEST_EXPONENT || exponent % 2 == 0 {
            return Err(format!(
                "the key's exponent is {exponent}; without a hash only odd ones from 65537 up are safe: ask the \
                 provider for another key"
            ));
        }
        let modulus = Modulus::new(&key.n().to_bytes_be())
            .ok_or("the key's modulus is even, which no RSA key's is: copy it again from the provider's panel")?;
        // The fingerprint must be the same however the key was written down: sources that share it share a memory.
        let spki =
            key.to_public_key_der().map_err(|_| "the key cannot be written as DER: ask for another".to_owned())?;
        Ok(Self(Arc::new(Inner {
            fingerprint: Digest::of(spki.as_bytes()),
            bits: u32::try_from(bits).unwrap_or(u32::MAX),
            block_bytes: bits.div_ceil(8),
            exponent,
            modulus,
        })))
    }

    /// SHA-256 of the key's DER (SubjectPublicKeyInfo, whatever it was written as).
    pub fn fingerprint(&self) -> Digest {
        self.0.fingerprint
    }

    /// Modulus length in bits.
    pub fn bits(&self) -> u32 {
        self.0.bits
    }

    /// Undoes the private encryption of every block and takes off the padding.
    ///
    /// Ends at the first block that this key's owner did not write: whether one is well-formed is known to everybody
    /// who has the public key, and a forgery then costs one exponentiation, however long it is.
    ///
    /// Nothing but the cutting ties the blocks of a signature together, so only a signer's own way to cut is taken:
    /// all chunks but the last are k-11 bytes long (or 117, where the vendor's samples always cut), none is empty.
    /// Else two genuine short signatures, one behind the other, would pass for the signature of a third message.
    pub(super) fn recover(&self, signature: &[u8]) -> Result<Recovered, SignatureError> {
        let key = &*self.0;
        if signature.is_empty() || !signature.len().is_multiple_of(key.block_bytes) {
            return Err(SignatureError::Length);
        }
        let blocks = signature.len() / key.block_bytes;
        let full = key.block_bytes - PADDING_BYTES;
        let mut longest = full;
        let mut text = Vec::with_capacity(signature.len());
        let mut padded = Vec::with_capacity(key.block_bytes);
        for (number, block) in signature.chunks_exact(key.block_bytes).enumerate() {
            padded.clear();
            key.modulus.raise(block, key.exponent, &mut padded).ok_or(SignatureError::Range)?;
            let chunk = chunk_of(&padded).ok_or(SignatureError::Padding)?;
            if number == 0 && blocks > 1 && chunk.len() == SAMPLE_CHUNK_BYTES {
                longest = SAMPLE_CHUNK_BYTES;
            }
            let last = number + 1 == blocks;
            if chunk.len() > longest || (!last && chunk.len() != longest) {
                return Err(SignatureError::Cutting);
            }
            text.extend_from_slice(chunk);
        }
        Ok(Recovered { text, key: key.fingerprint })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits, {})", self.0.bits, self.0.fingerprint)
    }
}

impl Recovered {
    /// The proof that `string` was signed; `None` when something else was. Constant time in the content. The empty
    /// string is never signed: it would vouch for a message without a single value.
    pub(super) fn proves(&self, string: &[u8]) -> Option<SignedString> {
        let same = bool::from(self.text.ct_eq(string)) && !string.is_empty();
        same.then(|| SignedString { key: self.key, hash: Digest::of(string) })
    }
}

impl Modulus {
    fn new(be_bytes: &[u8]) -> Option<Self> {
        Some(match be_bytes.len() * 8 {
            ..=1024 => Self::Bits1024(Montgomery::new(be_bytes)?),
            1025..=1536 => Self::Bits1536(Montgomery::new(be_bytes)?),
            1537..=2048 => Self::Bits2048(Montgomery::new(be_bytes)?),
            2049..=3072 => Self::Bits3072(Montgomery::new(be_bytes)?),
            3073..=4096 => Self::Bits4096(Montgomery::new(be_bytes)?),
            _ => return None,
        })
    }

    /// Appends `block ^ exponent mod n`, as long as the block; `None` for a block that is not below n.
    fn raise(&self, block: &[u8], exponent: u64, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Bits1024(modulus) => modulus.raise(block, exponent, out),
            Self::Bits1536(modulus) => modulus.raise(block, exponent, out),
            Self::Bits2048(modulus) => modulus.raise(block, exponent, out),
            Self::Bits3072(modulus) => modulus.raise(block, exponent, out),
            Self::Bits4096(modulus) => modulus.raise(block, exponent, out),
        }
    }
}

impl<const LIMBS: usize> Montgomery<LIMBS> {
    fn new(be_bytes: &[u8]) -> Option<Self> {
        let modulus: Option<Odd<Uint<LIMBS>>> = Odd::new(widened(be_bytes)?).into();
        modulus.map(|modulus| Self(FixedMontyParams::new_vartime(modulus)))
    }

    fn raise(&self, block: &[u8], exponent: u64, out: &mut Vec<u8>) -> Option<()> {
        let base: Uint<LIMBS> = widened(block)?;
        if base >= *self.0.modulus().as_ref() {
            return None;
        }
        let montgomery = FixedMontyForm::new(&base, &self.0);
        let mut power = montgomery;
        let bits = u64::BITS - exponent.leading_zeros();
        for bit in (1..bits - 1).rev() {
            power = power.square();
            if exponent >> bit & 1 == 1 {
                power = power.mul(&montgomery);
            }
        }
        // The exponent is odd, so that the last step is always a square and a product. Taking the plain base for that
        // product leaves the Montgomery form in the same stroke.
        let plain = power.square().mul(&FixedMontyForm::from_montgomery(base, &self.0));
        let bytes = plain.as_montgomery().to_be_bytes();
        let bytes = bytes.as_slice();
        out.extend_from_slice(bytes.get(bytes.len().checked_sub(block.len())?..)?);
        Some(())
    }
}

/// A big-endian number in more bytes than it needs.
fn widened<const LIMBS: usize>(be_bytes: &[u8]) -> Option<Uint<LIMBS>> {
    let mut wide = [0_u8; 512];
    let wide = wide.get_mut(..Uint::<LIMBS>::BYTES)?;
    let start = wide.len().checked_sub(be_bytes.len())?;
    wide.get_mut(start..)?.copy_from_slice(be_bytes);
    Some(Uint::from_be_slice(wide))
}

/// What stands behind `00 01 FF.. 00`; `None` unless there are at least eight `FF` and the chunk is not empty.
fn chunk_of(block: &[u8]) -> Option<&[u8]> {
    let [0, 1, rest @ ..] = block else { return None };
    let filling = rest.iter().take_while(|byte| **byte == 0xFF).count();
    let [0, chunk @ ..] = rest.get(filling..)? else { return None };
    (filling + 3 >= PADDING_BYTES && !chunk.is_empty()).then_some(chunk)
}

/// The DER of what an operator pasted: PEM with any line width, or the base64 alone.
fn der_of(text: &str) -> Result<Vec<u8>, String> {
    let mut base64 = String::with_capacity(text.len());
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("-----") {
            Some(armour) if armour.contains("PRIVATE KEY") => {
                return Err(
                    "this is a private key, which belongs to whoever signs: put the platform's public key here, \
                            and replace that private key, since it was shown around"
                        .to_owned(),
                );
            }
            Some(armour) if armour.contains("CERTIFICATE") => {
                return Err("this is a certificate: put its public key here (openssl x509 -pubkey -noout)".to_owned());
            }
            Some(_) => {}
            None => base64.extend(line.chars().filter(|c| !c.is_whitespace())),
        }
    }
    if base64.is_empty() {
        return Err("there is no key in it: put in the platform's public key, as PEM or as bare base64".to_owned());
    }
    STANDARD.decode(base64).map_err(|_| {
        "this is neither PEM nor base64: copy the platform's public key from the provider's panel, whole".to_owned()
    })
}

#[cfg(test)]
mod tests;
