//! The md5 exchange: `md5` + md5( md5(password ‖ user) ‖ salt ), both digests as hexadecimal digits.
//!
//! The inner digest is what PostgreSQL and `auth_file` store, so a stored one is as good as the password.

use ::md5::{Digest, Md5};
use subtle::{Choice, ConstantTimeEq};

use super::secret::{Md5Hash, Secret};

/// md5 of password and user name, as stored.
pub fn hash(user: &[u8], password: &[u8]) -> Md5Hash {
    Md5Hash::from_digits(hex_digest(&[password, user]))
}

/// The answer to a request with this salt, without the zero byte that ends it in the message. `None` for a secret that
/// md5 cannot use: none, or SCRAM.
pub fn md5_response(user: &[u8], secret: &Secret, salt: [u8; 4]) -> Option<String> {
    let stored = match secret {
        Secret::Plain(password) => hash(user, password),
        Secret::Md5(stored) => stored.clone(),
        Secret::Scram(_) | Secret::None => return None,
    };
    let digits = hex_digest(&[stored.digits(), &salt]);
    // Hexadecimal digits are characters.
    Some("md5".chars().chain(digits.map(char::from)).collect())
}

/// Whether `answer` (without the zero byte) proves the secret, in constant time. A secret that md5 cannot use is never
/// proved, and takes as long.
pub fn verify(user: &[u8], secret: &Secret, salt: [u8; 4], answer: &[u8]) -> bool {
    let response = md5_response(user, secret, salt);
    let usable = Choice::from(u8::from(response.is_some()));
    let nobody = || md5_response(user, &Secret::plain(b"nobody"), salt).unwrap_or_default();
    let expected = response.unwrap_or_else(nobody);
    bool::from(usable & expected.as_bytes().ct_eq(answer))
}

/// md5 over the concatenation of the parts, as lower-case digits.
fn hex_digest(parts: &[&[u8]]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    let digest = hasher.finalize();
    std::array::from_fn(|i| {
        let shift = if i % 2 == 0 { 4 } else { 0 };
        DIGITS[usize::from(digest[i / 2] >> shift & 0xf)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn hash_is_what_postgresql_stores() {
        // select 'md5' || md5('pencil' || 'ann');
        assert_eq!(
            hash(b"ann", b"pencil").stored().as_slice(),
            STORED.as_bytes()
        );
    }

    const STORED: &str = "md528754acffc5400623f44a44d30b50393";

    #[test]
    fn plain_and_stored_secret_give_the_same_answer() {
        let plain = md5_response(b"ann", &Secret::parse(b"pencil"), SALT);
        let stored = md5_response(b"ann", &Secret::parse(STORED.as_bytes()), SALT);
        assert_eq!(
            plain.as_deref(),
            Some("md57a54f810f22603a6e57c5628653701a4")
        );
        assert_eq!(plain, stored);
    }

    #[test]
    fn only_the_right_answer_proves_the_secret() {
        let secret = Secret::parse(b"pencil");
        let right = md5_response(b"ann", &secret, SALT).unwrap();
        assert!(verify(b"ann", &secret, SALT, right.as_bytes()));
        assert!(!verify(b"bob", &secret, SALT, right.as_bytes()));
        assert!(!verify(b"ann", &secret, [0; 4], right.as_bytes()));
        assert!(!verify(
            b"ann",
            &Secret::parse(b"pen"),
            SALT,
            right.as_bytes()
        ));
        for wrong in [
            "",
            "md5",
            "pencil",
            &right[..34],
            &right.to_uppercase(),
            &format!("{right}0"),
        ] {
            assert!(!verify(b"ann", &secret, SALT, wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn no_answer_proves_an_empty_or_scram_secret() {
        let scram = super::super::scram::ScramVerifier::derive(b"pencil", b"salt", 1).to_string();
        for stored in ["", &scram] {
            let secret = Secret::parse(stored.as_bytes());
            assert_eq!(md5_response(b"ann", &secret, SALT), None);
            for guess in ["", "nobody", "pencil", stored] {
                let inner = hash(b"ann", guess.as_bytes());
                let answer = md5_response(b"ann", &Secret::Md5(inner), SALT).unwrap();
                assert!(!verify(b"ann", &secret, SALT, answer.as_bytes()));
            }
            assert!(!verify(b"ann", &secret, SALT, b""));
        }
    }
}
