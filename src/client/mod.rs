//! (to come)
pub mod deliver;
pub mod forward;
pub mod statements;
