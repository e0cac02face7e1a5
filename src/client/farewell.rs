//! stub
use crate::net::stream::Stream;
/// stub
pub async fn farewell(mut stream: Stream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
}
