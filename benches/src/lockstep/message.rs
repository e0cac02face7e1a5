//! The few bytes of the protocol that are needed here: writing a message and finding its end.

/// Appends a message with this tag, its body given in parts.
pub fn push(out: &mut Vec<u8>, tag: u8, body: &[&[u8]]) {
    let len: usize = body.iter().map(|part| part.len()).sum();
    out.push(tag);
    // What is written here is small.
    out.extend_from_slice(&(len as u32 + 4).to_be_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
}

/// The message at the start of `bytes`, if all of it is there: tag, body, and where the next one begins.
pub fn split(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let head = bytes.get(..5)?;
    let end = 1 + u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    Some((head[0], bytes.get(5..end)?, end))
}
