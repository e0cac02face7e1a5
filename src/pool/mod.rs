//! (to come)
pub mod core;
