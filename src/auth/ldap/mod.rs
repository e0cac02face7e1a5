//! LDAP without its network: what the options say, which DN or filter a user name makes, and the few messages that a
//! password check needs. The exchange itself is `client::login::ldap`.
//!
//! | file | subject |
//! |---|---|
//! | [`options`] | `auth_ldap_options`, or the tail of an HBA line, to [`LdapOptions`] |
//! | `url` | `ldapurl` (RFC 4516) |
//! | [`name`] | a user name to the DN that is bound, or to the filter that finds it |
//! | `filter` | a filter's text (RFC 4515) to its bytes |
//! | [`message`] | requests to bytes, bytes to replies (RFC 4511) |
//! | [`ber`] | tags and lengths |
//!
//! The messages are written and read here instead of with an LDAP library, because a reply is what lets somebody in: it
//! counts only if it is the reply to that very bind, whatever else a server sends cannot grow, nest or panic, and
//! passwords are wiped.

pub mod ber;
mod filter;
pub mod message;
pub mod name;
pub mod options;
mod url;

pub use options::{LdapOptions, OptionError};
