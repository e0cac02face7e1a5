//! A small client for the PostgreSQL protocol, version 3: builds [messages](msg), reads [frames](Frame), logs in. It sends what it is told,
//! also nonsense, and hides nothing of what comes back.

pub mod backend;
mod conn;
mod frame;
pub mod msg;
pub mod scram;

pub use conn::{Conn, Exchange};
pub use frame::{Frame, Reply};
