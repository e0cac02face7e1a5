//! One connection to PostgreSQL: connecting and logging in, the replies it owes, its parameters and prepared statements.
//!
//! What is decided without waiting is pure and lies apart: [`owed`], [`params`], [`prepared`], [`reply_length`], [`sql`] (with
//! its [`lexer`]), [`link`]. [`conn`] is the connection itself, [`align`] how it is made to suit its next client. Who may use it is
//! `pool`'s business.

pub mod align;
pub mod conn;
pub mod connect;
pub mod inbox;
pub mod lexer;
pub mod link;
pub mod owed;
pub mod params;
pub mod prepared;
pub mod reply_length;
pub mod sql;
