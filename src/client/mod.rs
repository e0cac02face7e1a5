//! One connected client, from its first byte to its last.
//!
//! Once logged in, a client is a [`session`]; the walks over its bytes ([`forward`]) and its server's ([`deliver`]) and its
//! prepared [`statements`] are pure. [`card`] is what others see of it.

pub mod card;
pub mod deliver;
pub mod farewell;
pub mod forward;
pub mod greeting;
pub mod session;
pub mod statements;
