//! Proofs and rules: who a client is, by which rule it may come in, and how we show a server who we are.
//!
//! Everything here is a function of bytes that came in and secrets that are known: no sockets, no `await`, no clock, no
//! pools; of the settings only users and passwords of entries. Callers frame the messages, look users up and choose when to run the slow parts (a SCRAM
//! derivation takes milliseconds, see [`scram`]).
//!
//! | file | subject |
//! |---|---|
//! | [`secret`] | one stored secret: nothing, plain, md5 or SCRAM |
//! | [`user`] | a name with its secret, and what was derived from it |
//! | [`file`](mod@file) | `auth_file`: text to users |
//! | [`ldap`] | options and messages of LDAP; not the network |
//! | [`server_users`] | as whom servers are logged in to |
//! | [`inquiry`] | what a server answers to `auth_query` |
//! | [`acquaintances`] | the users that `auth_query` has found |
//! | [`hba`] | `auth_hba_file`: text to rules, and the rule that fits a client |
//! | [`ident`] | `auth_ident_file`: who may log in as whom |
//! | [`rule_file`] | lines, words and mistakes of these two |
//! | [`cert`] | whom a client's certificate belongs to |
//! | [`method`] | which exchange a client meets |
//! | [`cleartext`], [`md5`], [`scram`] | the exchanges |
//! | [`server_login`] | our own login at a server, from its first request to its OK |
//! | [`text`] | the words that clients see |
//!
//! Two rules hold in every file: an empty secret matches nothing, and secrets are compared in constant time.

pub mod acquaintances;
pub mod cert;
pub mod cleartext;
pub mod file;
pub mod hba;
pub mod ident;
pub mod inquiry;
pub mod ldap;
pub mod md5;
pub mod method;
pub mod rule_file;
pub mod scram;
pub mod secret;
pub mod server_login;
pub mod server_users;
pub mod text;
pub mod user;

pub use acquaintances::Acquaintances;
pub use file::{AuthFile, FileProblem};
pub use ldap::LdapOptions;
pub use method::{Exchange, Method};
pub use secret::Secret;
pub use server_login::{LoginError, ServerLogin, Step};
pub use server_users::ServerUsers;
pub use user::User;
