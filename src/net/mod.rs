//! Sockets: listening, dialling, TLS, and streams that can move from one runtime to another.
//!
//! What is here carries bytes. It has not heard of PostgreSQL's messages (those are `wire`'s), of
//! pools or of clients, and it reads no settings: callers translate them into [`options::TcpOptions`],
//! [`listen::ListenOptions`] and [`tls::TlsSettings`].
//!
//! | file | what |
//! |---|---|
//! | [`stream`] | [`Stream`], the one connected byte stream, and [`DetachedStream`], the same between two runtimes |
//! | `socket` | the kernel socket below it |
//! | [`reactor`] | which sockets of a worker are ready |
//! | [`listen`], [`unix`] | TCP listeners; Unix ones with their directory, mode and lock file |
//! | [`mod@dial`] | outgoing connections |
//! | [`dns`] | host names: looked up, remembered, watched |
//! | [`tls`] | certificates, modes, handshakes |
//! | [`buffer`] | output that a slow peer has not taken yet |
//! | [`options`] | TCP socket options |

pub mod buffer;
pub mod dial;
pub mod dns;
pub mod listen;
pub mod options;
pub mod prefixed;
pub mod reactor;
mod socket;
pub mod stream;
pub mod tls;
pub mod unix;

#[cfg(test)]
pub(crate) mod testing;

pub use buffer::Backlog;
pub use dial::{Target, dial, dial_addr, dial_places, dial_unix};
pub use dns::Resolver;
pub use listen::{AcceptError, Bound, BoundListener, ListenError, ListenOptions, Listener};
pub use options::TcpOptions;
pub use stream::{DetachedStream, PeerAddr, Readable, Stream};
pub use unix::{SocketPath, UnixOptions};
