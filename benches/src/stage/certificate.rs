//! A key (ECDSA P-256) and a certificate that it signs itself, for the cluster and the poolers alike.

use std::path::PathBuf;

use super::Folder;
use crate::failure::{Doing, Result};

/// Where the two files are.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    pub fn create(folder: &Folder) -> Result<Certificate> {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .doing("cannot make a certificate")?;
        Ok(Certificate {
            certificate: folder.write_for_servers("server.crt", &made.cert.pem())?,
            key: folder.write_for_servers("server.key", &made.signing_key.serialize_pem())?,
        })
    }
}
