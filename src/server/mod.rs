//! One connection to PostgreSQL: connecting and logging in, the replies it owes, its parameters and prepared statements.
//!
//! What is decided without waiting is pure and lies apart: [`owed`], [`params`], [`prepared`], [`link`]. [`conn`] is the
//! connection itself. Who may use it is `pool`'s business.

pub mod conn;
pub mod connect;
pub mod inbox;
pub mod link;
pub mod owed;
pub mod params;
pub mod prepared;
