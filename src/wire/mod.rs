//! Bytes to messages and back: the PostgreSQL v3 wire protocol, pure.
//!
//! Nothing here waits, locks or knows what a pool is. Traffic between a client and a server is never decoded and encoded
//! again: [`frame`] finds where messages begin and end, [`splice`] passes runs of untouched bytes along. Only messages that the
//! pooler itself originates are built ([`build`]), and only what it must understand is read ([`startup`], [`read`]).
//!
//! Messages are built and read by hand rather than with a message crate: user names, parameter values and error texts are
//! bytes in whatever encoding the client chose, and the crates at hand decode them as UTF-8, lossily.

pub mod build;
pub mod frame;
pub mod options;
pub mod read;
pub mod splice;
pub mod startup;
pub mod tag;
