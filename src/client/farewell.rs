//! Last words to a client, in a way that they arrive.
//!
//! A socket that is closed while input waits in it resets the connection, and a reset may overtake what was written before:
//! the client would see "connection reset" instead of the reason. So the words are written, our half is closed, and what the
//! client still sends is thrown away for a moment.

use std::io;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::timeout;

use crate::net::Stream;

/// How long a farewell may take altogether. A client that reads is gone after one round trip.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes of a client's unread input are thrown away before the connection is closed regardless.
pub const DRAIN_BYTES_MAX: usize = 1 << 20;
/// Bytes thrown away at once.
const DRAIN_STEP: usize = 4096;

/// Sends `bytes` and closes the connection, within [`FAREWELL_TIMEOUT`]. Whether the client has read them, nobody can know.
pub async fn farewell(mut stream: Stream, bytes: &[u8]) {
    // Errors mean that the client is gone already.
    let _ = timeout(FAREWELL_TIMEOUT, part(&mut stream, bytes)).await;
}

/// Closes a connection to which nothing is left to say, and which has sent its last message or is broken: nobody is waited for. TLS says
/// its own goodbye, if the kernel takes it at once.
pub fn close(mut stream: Stream) {
    if stream.is_tls() {
        let _ = stream.poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}

async fn part(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    drain(stream).await
}

async fn drain(stream: &mut Stream) -> io::Result<()> {
    // On the heap: the future would carry it otherwise, in every session that may end like this.
    let mut ignored = vec![0; DRAIN_STEP];
    let mut drained = 0;
    while drained < DRAIN_BYTES_MAX {
        match stream.read_some(&mut ignored).await? {
            0 => break,
            count => drained += count,
        }
    }
    Ok(())
}
