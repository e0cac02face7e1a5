//! How long a reply has become, and from when on its pieces may gather before they are passed on.
//!
//! PostgreSQL sends a large result in pieces of 8 kB. To be woken for each costs more than to pass them on, so the pieces of a large
//! reply gather: that is for the socket to do ([`Stream::set_lazy`](crate::net::stream::Stream::set_lazy)), and here is when. What it
//! costs in time, a nap at the end of the reply, is kept small beside what the reply has taken until then.

use std::time::Duration;

use crate::net::reactor::NAP;

/// A reply that has become this long without an end is a large one: what follows may gather.
const LARGE_REPLY_LEN: u64 = 128 << 10;
/// From this length on naps may become longer: the reply has taken many times as long already.
const VERY_LARGE_REPLY_LEN: u64 = 4 << 20;
/// How long they may become.
const LONG_NAP: Duration = Duration::from_millis(1);
/// When so much of a large reply has come after a pause, it gathers again.
const RESUMED_REPLY_LEN: u64 = 32 << 10;

/// What to do about the pieces that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// What is done now.
    AsBefore,
    /// Pass on each when it comes.
    AtOnce,
    /// Let them gather, for up to so long.
    Gather(Duration),
}

/// How much has come of a reply that has no end yet.
#[derive(Debug)]
pub struct ReplyLength {
    bytes: u64,
    /// Up to this number of them each piece is passed on when it comes.
    at_once_until: u64,
    gathers: bool,
}

/// Nothing has come.
impl Default for ReplyLength {
    fn default() -> ReplyLength {
        ReplyLength {
            bytes: 0,
            at_once_until: LARGE_REPLY_LEN,
            gathers: false,
        }
    }
}

impl ReplyLength {
    /// So many bytes have come, `ended` if there is nothing more to say now. `is_lazy` asks whether the socket lets input gather: it
    /// stops that by itself when none comes.
    #[inline]
    pub fn note(&mut self, received: usize, ended: bool, is_lazy: impl FnOnce() -> bool) -> Pace {
        if ended {
            let gathered = self.gathers;
            *self = ReplyLength::default();
            return if gathered {
                Pace::AtOnce
            } else {
                Pace::AsBefore
            };
        }
        self.bytes += received as u64;
        if self.bytes < self.at_once_until {
            return Pace::AsBefore;
        }
        self.note_large(is_lazy())
    }

    fn note_large(&mut self, is_lazy: bool) -> Pace {
        if self.gathers && !is_lazy {
            self.gathers = false;
            self.at_once_until = self.bytes + RESUMED_REPLY_LEN;
            return Pace::AsBefore;
        }
        self.gathers = true;
        Pace::Gather(if self.bytes < VERY_LARGE_REPLY_LEN {
            NAP
        } else {
            LONG_NAP
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 8192;

    /// Pieces come, on a socket that is not lazy, until they are to gather; how many bytes that took.
    fn until_gathering(reply: &mut ReplyLength) -> u64 {
        let mut bytes = 0;
        loop {
            bytes += PIECE as u64;
            match reply.note(PIECE, false, || false) {
                Pace::AsBefore => assert!(bytes < VERY_LARGE_REPLY_LEN),
                pace => {
                    assert_eq!(pace, Pace::Gather(NAP));
                    return bytes;
                }
            }
        }
    }

    #[test]
    fn small_replies_never_gather() {
        let mut reply = ReplyLength::default();
        for _ in 0..1000 {
            for ended in [false, true] {
                let pace = reply.note(60_000, ended, || panic!("asked for nothing"));
                assert_eq!(pace, Pace::AsBefore);
            }
        }
    }

    #[test]
    fn a_large_reply_gathers_until_its_end() {
        let mut reply = ReplyLength::default();
        for _ in 0..3 {
            assert_eq!(until_gathering(&mut reply), LARGE_REPLY_LEN);
            assert_eq!(reply.note(PIECE, false, || true), Pace::Gather(NAP));
            assert_eq!(reply.note(PIECE, true, || true), Pace::AtOnce);
            assert_eq!(reply.note(PIECE, true, || false), Pace::AsBefore);
        }
    }

    #[test]
    fn a_very_large_one_may_gather_for_longer() {
        let mut reply = ReplyLength::default();
        until_gathering(&mut reply);
        let rest = (VERY_LARGE_REPLY_LEN - LARGE_REPLY_LEN) as usize;
        assert_eq!(reply.note(rest - 1, false, || true), Pace::Gather(NAP));
        assert_eq!(reply.note(1, false, || true), Pace::Gather(LONG_NAP));
    }

    #[test]
    fn after_a_pause_it_gathers_again_soon() {
        let mut reply = ReplyLength::default();
        until_gathering(&mut reply);
        assert_eq!(reply.note(PIECE, false, || false), Pace::AsBefore);
        assert_eq!(until_gathering(&mut reply), RESUMED_REPLY_LEN);
    }

    #[test]
    fn an_end_right_after_a_pause_is_as_any_other() {
        let mut reply = ReplyLength::default();
        until_gathering(&mut reply);
        assert_eq!(reply.note(PIECE, true, || false), Pace::AtOnce);
        assert_eq!(until_gathering(&mut reply), LARGE_REPLY_LEN);
        assert_eq!(reply.note(PIECE, false, || false), Pace::AsBefore);
        assert_eq!(reply.note(PIECE, true, || false), Pace::AsBefore);
        assert_eq!(until_gathering(&mut reply), LARGE_REPLY_LEN);
    }
}
