//! (to come)
pub mod owed;
pub mod params;
pub mod prepared;
