//! (see lib.rs)

pub mod report;
