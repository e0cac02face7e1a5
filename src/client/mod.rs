//! One connected client, from its first byte to its last.
//!
//! It is received by [`login`], if [`admission`] has room for it. Once logged in, a client is a [`session`]; the walks over its
//! bytes ([`forward`]) and its server's ([`deliver`]) and its prepared [`statements`] (with their [`names`]) are pure. [`card`] is what others see of
//! it, [`profile`] what it shares with clients of its kind, [`who`] what stands before its log lines, [`farewell`](mod@farewell) how it is told why it must go.

pub mod admission;
pub mod card;
pub mod deliver;
pub mod farewell;
pub mod forward;
pub mod greeting;
pub mod login;
pub mod names;
pub mod profile;
pub mod session;
pub mod statements;
pub mod who;

#[cfg(test)]
mod conversations;
