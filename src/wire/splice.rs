//! Passing bytes along with as little touching as possible.
//!
//! A [`Splice`] walks over one input buffer and collects what shall go out. As long as everything passes untouched the result
//! is a slice of the input itself; only from the first change on (a message dropped, inserted or rewritten) bytes are copied
//! into a scratch buffer. Either way the result leaves in one write.

/// One walk over `input`. The bytes before the cursor have been decided upon, the rest not yet.
pub struct Splice<'a> {
    input: &'a [u8],
    /// Start of the run of untouched bytes that has not been copied yet.
    run: usize,
    /// What is not decided upon: a tail of `input`.
    rest: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl<'a> Splice<'a> {
    /// Starts at the beginning of `input`; whatever `out` already holds goes out first.
    pub fn new(input: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Splice {
            input,
            run: 0,
            rest: input,
            out,
        }
    }

    /// The bytes that are not decided upon.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes have been decided upon.
    pub fn consumed(&self) -> usize {
        self.input.len() - self.rest.len()
    }

    /// Lets the next `n` bytes pass untouched.
    #[inline]
    pub fn pass(&mut self, n: usize) {
        self.rest = &self.rest[n..];
    }

    /// Drops the next `n` bytes.
    #[inline]
    pub fn skip(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        self.copy_run();
        self.rest = &self.rest[n..];
        self.run = self.consumed();
    }

    /// Puts bytes of our own at this place: write them into the returned buffer.
    pub fn insert(&mut self) -> &mut Vec<u8> {
        self.copy_run();
        self.out
    }

    /// Ends the walk: what shall go out, and how many input bytes are used up.
    #[inline]
    pub fn finish(mut self) -> (&'a [u8], usize) {
        let consumed = self.consumed();
        if self.out.is_empty() {
            return (&self.input[self.run..consumed], consumed);
        }
        self.copy_run();
        (&self.out[..], consumed)
    }

    fn copy_run(&mut self) {
        let consumed = self.consumed();
        self.out.extend_from_slice(&self.input[self.run..consumed]);
        self.run = consumed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_bytes_are_not_copied() {
        let (input, mut out) = (b"abcdef".to_vec(), Vec::new());
        let mut splice = Splice::new(&input, &mut out);
        splice.pass(2);
        splice.pass(2);
        let (bytes, consumed) = splice.finish();
        assert_eq!((bytes, consumed), (&b"abcd"[..], 4));
        assert_eq!(bytes.as_ptr(), input.as_ptr());
    }

    #[test]
    fn a_dropped_prefix_costs_no_copy() {
        let (input, mut out) = (b"abcdef".to_vec(), Vec::new());
        let mut splice = Splice::new(&input, &mut out);
        splice.skip(2);
        splice.pass(3);
        assert_eq!(splice.finish(), (&b"cde"[..], 5));
        assert!(out.is_empty());
    }

    #[test]
    fn changes_keep_the_order() {
        let (input, mut out) = (b"abcdef".to_vec(), Vec::new());
        let mut splice = Splice::new(&input, &mut out);
        splice.pass(2);
        splice.insert().extend_from_slice(b"--");
        splice.pass(1);
        splice.skip(1);
        splice.pass(2);
        assert_eq!(splice.rest(), b"");
        assert_eq!(splice.finish(), (&b"ab--cef"[..], 6));
    }

    #[test]
    fn what_waits_goes_first() {
        let (input, mut out) = (b"abc".to_vec(), b"0".to_vec());
        let mut splice = Splice::new(&input, &mut out);
        splice.pass(3);
        assert_eq!(splice.finish(), (&b"0abc"[..], 3));
    }
}
