//! Who gets which server, and when.
//!
//! [`core`] decides, pure; [`budget`] is the only state that workers share, with the [`turn`] that they take to close old servers; [`shard`] is one worker's part of a pool with real
//! servers in it; a client holds a [`lease`] or waits with a [`ticket`], for a reason that
//! [`why`] knows; [`recipe`] says how servers are connected.

pub mod budget;
pub mod core;
pub mod lease;
pub mod recipe;
pub mod shard;
pub mod ticket;
pub mod turn;
pub mod why;
