//! (to come)
pub mod link;
pub mod owed;
pub mod params;
pub mod prepared;
