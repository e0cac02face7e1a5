//! The arithmetic of RFC 5802: H, HMAC, Hi, XOR, and the preparation of passwords.
//!
//! No parsing and no decisions here.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A SHA-256 sized key, hash, proof or signature.
pub(super) type Key = [u8; 32];

/// The block size of SHA-256, in bytes.
const BLOCK_BYTES: usize = 64;

/// H() over the concatenation of the parts.
pub(super) fn hash(parts: &[&[u8]]) -> Key {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HMAC() over the concatenation of the parts.
pub(super) fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    // HMAC pads short keys with zeros up to a block (RFC 2104); doing it here spares an error that cannot happen.
    let mut block = Zeroizing::new([0u8; BLOCK_BYTES]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Hi(): the salted password. `iterations` below 1 count as 1.
pub(super) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Key> {
    let prepared = prepare(password);
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(&prepared, salt, iterations.max(1), &mut *salted);
    salted
}

/// XOR, which turns proof and signature into the client's key and back.
pub(super) fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// SASLprep. Like PostgreSQL, falls back to the raw bytes of what is not UTF-8, is prohibited or would become empty.
fn prepare(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .map(|text| Zeroizing::new(text.into_owned().into_bytes()));
    match prepared {
        Some(bytes) if !bytes.is_empty() => bytes,
        _ => Zeroizing::new(password.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"plain", b"plain"),
            ("I\u{ad}X".as_bytes(), b"IX"),
            ("\u{2168}".as_bytes(), b"IX"),
            ("a\u{a0}b".as_bytes(), b"a b"),
            // Prohibited, not UTF-8, and nothing left: the bytes as they are.
            (b"a\x07b", b"a\x07b"),
            (b"\xff\xfe", b"\xff\xfe"),
            ("\u{ad}".as_bytes(), "\u{ad}".as_bytes()),
        ];
        for (password, prepared) in cases {
            assert_eq!(prepare(password).as_slice(), prepared);
        }
    }

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        // Test case 2 has a 4-byte key; zero-padded it is the same key.
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = hmac(&key, &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(mac[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
