//! Vectors come from Python's big integers and the `openssl` program, never from this module.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const SIGNATURES: &str = include_str!("../../../tests/it/fixtures/clickpay/signatures.tsv");

fn vector(name: &str) -> String {
    let all: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/it/fixtures/clickpay/vectors.json")).expect("JSON");
    all[name].as_str().unwrap_or_else(|| panic!("no vector {name}")).to_owned()
}

fn bytes(name: &str) -> Vec<u8> {
    STANDARD.decode(vector(name)).expect("base64")
}

fn key() -> PublicKey {
    PublicKey::parse(&vector("public_1024")).expect("a key")
}

fn error(text: &str) -> String {
    PublicKey::parse(text).expect_err("must be refused")
}

#[test]
fn strings_of_every_key_size_and_cutting_are_recovered() {
    let mut tried = 0;
    for line in SIGNATURES.lines() {
        let [bits, public, chunk, string, signature] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("five columns: {line}")
        };
        let key = PublicKey::parse(public).expect("a key");
        assert_eq!(key.bits().to_string(), bits);
        let string: String = serde_json::from_str(string).expect("JSON");
        let signature = STANDARD.decode(signature).expect("base64");
        let recovered = key.recover(&signature).unwrap_or_else(|e| panic!("{bits} bits by {chunk}: {e}"));
        let signed = recovered.proves(string.as_bytes()).unwrap_or_else(|| panic!("{bits} bits by {chunk}"));
        assert_eq!((signed.key, signed.hash), (key.fingerprint(), Digest::of(string.as_bytes())));
        let other = format!("{string}0");
        assert!(recovered.proves(other.as_bytes()).is_none(), "nothing else was signed");
        tried += 1;
    }
    assert!(tried >= 80, "{tried}");
}

#[test]
fn openssl_and_this_module_agree_on_a_key_of_openssl() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let run = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).output().expect("openssl must be installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1536", "-out", &path("key")]);
    run(&["pkey", "-in", &path("key"), "-pubout", "-out", &path("public")]);
    let chunks = ["7".repeat(1536 / 8 - 11), "Zo\u{eb}".to_owned()];
    let mut signature = Vec::new();
    for chunk in &chunks {
        std::fs::write(path("chunk"), chunk).expect("written");
        // Its `-sign` is private encryption with padding type 1; `pkeyutl` takes nothing longer than a hash.
        run(&["rsautl", "-sign", "-inkey", &path("key"), "-in", &path("chunk"), "-out", &path("block")]);
        signature.extend(std::fs::read(path("block")).expect("read"));
    }
    let key = PublicKey::parse(&std::fs::read_to_string(path("public")).expect("read")).expect("a key");
    let recovered = key.recover(&signature).expect("recovered");
    assert!(recovered.proves(chunks.concat().as_bytes()).is_some());
    assert!(recovered.proves(chunks[0].as_bytes()).is_none());
}

#[test]
fn a_key_may_be_written_in_any_line_width_and_in_both_formats() {
    let bare = vector("public_1024");
    let expected = key().fingerprint();
    assert_eq!(expected, Digest::of(&STANDARD.decode(&bare).expect("base64")), "the fingerprint is that of the DER");
    for width in [1, 64, 76, 1000] {
        let lines: Vec<&str> = bare.as_bytes().chunks(width).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\r\n{}\r\n-----END PUBLIC KEY-----\r\n", lines.join("\r\n"));
        assert_eq!(PublicKey::parse(&pem).expect("a key").fingerprint(), expected);
    }
    let pkcs1 = STANDARD.encode(&STANDARD.decode(&bare).expect("base64")[22..]); // behind SPKI's fixed head
    assert_eq!(PublicKey::parse(&pkcs1).expect("a PKCS#1 key").fingerprint(), expected);
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{pkcs1}\n-----END RSA PUBLIC KEY-----");
    assert_eq!(PublicKey::parse(&pem).expect("a PKCS#1 key").fingerprint(), expected);
}

#[test]
fn a_key_that_would_not_be_safe_is_refused_with_a_remedy() {
    use rsa::BigUint;
    let odd = |bits: usize| (BigUint::from(1_u8) << (bits - 1)) + BigUint::from(1_u8);
    let make = |n: BigUint, e: u64| PublicKey::new(&RsaPublicKey::new_unchecked(n, BigUint::from(e)));
    assert!(make(odd(1024), 65537).is_ok());
    assert!(make(odd(1023), 65537).expect_err("short").contains("1023 bits"));
    assert!(make(odd(4096), 65537).is_ok());
    assert!(make(odd(4097), 65537).expect_err("long").contains("4097 bits"));
    assert!(make(odd(1024), 3).expect_err("small exponent").contains("exponent is 3"));
    assert!(make(odd(1024), 65535).is_err());
    assert!(make(odd(1024), 65538).is_err());
    assert!(make(odd(1024) + BigUint::from(1_u8), 65537).expect_err("even").contains("even"));
    assert!(error("").contains("no key"));
    assert!(error("changeme!").contains("neither PEM nor base64"));
    assert!(error("aGVsbG8=").contains("not an RSA public key"));
    let private = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", vector("private_1024"));
    assert!(error(&private).contains("private key"));
    assert!(!error(&private).contains(&vector("private_1024")[..40]), "never repeats what it was given");
}

#[test]
fn what_the_owner_of_the_key_did_not_write_is_refused() {
    let key = key();
    let of = |signature: &[u8]| key.recover(signature).map(drop).expect_err("must be refused");
    assert_ne!(of(&bytes("other_key")), SignatureError::Length);
    assert_eq!(of(&bytes("padding_2")), SignatureError::Padding);
    assert_eq!(of(&bytes("junk_behind")), SignatureError::Cutting);
    let genuine = bytes("s1_sign");
    assert_eq!(of(b""), SignatureError::Length);
    assert_eq!(of(&genuine[..127]), SignatureError::Length);
    assert_eq!(of(&[&genuine[..], b"\0"].concat()), SignatureError::Length);
    assert_eq!(of(&[0xFF; 128]), SignatureError::Range);
    assert_eq!(of(&[0; 128]), SignatureError::Padding);
    let mut one_one = [0; 128];
    one_one[127] = 1;
    assert_eq!(of(&one_one), SignatureError::Padding, "1 is its own root");
}

#[test]
fn junk_behind_a_whole_first_block_is_refused() {
    let line = SIGNATURES.lines().find(|line| line.starts_with("1024") && line.contains(&"z".repeat(118)));
    let columns: Vec<&str> = line.expect("the vector of two blocks").split('\t').collect();
    let (key, signature) = (PublicKey::parse(columns[1]).expect("a key"), STANDARD.decode(columns[4]).expect("base64"));
    assert_eq!(signature.len(), 256);
    assert!(key.recover(&signature).is_ok());
    let junk = [&signature[..128], &[0x5A; 128]].concat();
    assert_eq!(key.recover(&junk).map(drop), Err(SignatureError::Padding));
    let reversed = [&signature[128..], &signature[..128]].concat();
    assert_eq!(key.recover(&reversed).map(drop), Err(SignatureError::Cutting));
}

#[test]
fn two_genuine_short_signatures_are_not_the_signature_of_a_third_message() {
    let (key, one) = (key(), bytes("s1_sign"));
    let twice = [&one[..], &one[..]].concat();
    assert_eq!(key.recover(&twice).map(drop), Err(SignatureError::Cutting));
}

#[test]
fn a_number_that_the_modulus_was_added_to_is_refused() {
    // c + n has the same power as c: without the range check one signature could be written in two ways.
    let (public, signature) = (bytes("public_1024"), bytes("s1_sign"));
    let modulus = rsa::BigUint::from_bytes_be(&public[29..29 + 128]);
    let moved = rsa::BigUint::from_bytes_be(&signature) + modulus;
    let moved = moved.to_bytes_be();
    assert_eq!(moved.len(), 128, "the vector is small enough to stay within a block");
    assert_eq!(key().recover(&moved).map(drop), Err(SignatureError::Range));
}

#[test]
fn padding_is_read_strictly() {
    let block = |filling: usize, rest: &[u8]| [&[0, 1][..], &vec![0xFF; filling], rest].concat();
    assert_eq!(chunk_of(&block(8, b"\0x")), Some(&b"x"[..]));
    assert_eq!(chunk_of(&block(8, b"\0\0")), Some(&b"\0"[..]));
    for bad in [block(7, b"\0x"), block(8, b"\0"), block(8, b""), block(8, b"\x01\0x"), block(9, b"\xFE\0x")] {
        assert_eq!(chunk_of(&bad), None, "{bad:?}");
    }
    assert_eq!(chunk_of(&[&[0, 2][..], &[0xFF; 8], b"\0x"].concat()), None, "padding type 2");
    assert_eq!(chunk_of(&[&[1, 1][..], &[0xFF; 8], b"\0x"].concat()), None);
}

#[test]
fn the_empty_string_is_never_signed() {
    let recovered = Recovered { text: Vec::new(), key: key().fingerprint() };
    assert!(recovered.proves(b"").is_none());
}

#[test]
#[ignore = "prints times, to hold beside `openssl speed rsa1024 rsa2048 rsa4096`"]
fn time_of_one_block() {
    for bits in ["1024", "1031", "1536", "2048", "3072", "4096"] {
        let line = SIGNATURES.lines().find(|line| line.starts_with(bits)).expect("a vector");
        let columns: Vec<&str> = line.split('\t').collect();
        let (key, signature) =
            (PublicKey::parse(columns[1]).expect("a key"), STANDARD.decode(columns[4]).expect("base64"));
        let runs = 2000;
        let begin = std::time::Instant::now();
        for _ in 0..runs {
            let _ = std::hint::black_box(key.recover(std::hint::black_box(&signature)));
        }
        println!("{bits} bits: {:?}", begin.elapsed() / runs);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(signature: Vec<u8>, blocks in 0_usize..3, byte: u8) {
        let _ = key().recover(&signature);
        let _ = key().recover(&vec![byte; blocks * 128]);
        let _ = PublicKey::parse(&String::from_utf8_lossy(&signature));
    }
}
