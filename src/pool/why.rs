//! Why clients wait: which of several reasons counts. Pure.

use super::budget::Denied;
use crate::metrics::WaitReason;

/// How a pool stands, as far as that decides why its clients wait on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is paused.
    pub paused: bool,
    /// The last attempt to connect a server has failed.
    pub failing: bool,
    /// A server is connected, on any worker.
    pub has_servers: bool,
    /// The first limit that is reached.
    pub full: Option<Denied>,
    /// Servers that are being connected or tested here: each will serve one client.
    pub coming: usize,
}

impl Standing {
    /// Why the client waits that stands at this place of the queue (0: next). What an operator has to do something about comes
    /// first; if nothing forbids a server, one is on its way, or soon will be.
    pub fn reason(&self, place: usize) -> WaitReason {
        if self.paused {
            return WaitReason::Paused;
        }
        if self.failing && !self.has_servers {
            return WaitReason::ServerDown;
        }
        if place < self.coming && !self.failing {
            return WaitReason::LoggingIn;
        }
        match self.full {
            Some(Denied::Pool) => WaitReason::PoolFull,
            Some(Denied::Database) => WaitReason::DatabaseLimit,
            Some(Denied::User) => WaitReason::UserLimit,
            None if self.failing => WaitReason::ServerDown,
            None => WaitReason::LoggingIn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(standing: Standing, place: usize, expected: WaitReason) {
        assert_eq!(standing.reason(place), expected, "{standing:?} at {place}");
    }

    #[test]
    fn a_limit_is_the_reason_for_those_behind_the_servers_on_their_way() {
        for (full, reason) in [
            (Denied::Pool, WaitReason::PoolFull),
            (Denied::Database, WaitReason::DatabaseLimit),
            (Denied::User, WaitReason::UserLimit),
        ] {
            let standing = Standing {
                has_servers: true,
                full: Some(full),
                coming: 2,
                ..Standing::default()
            };
            check(standing, 0, WaitReason::LoggingIn);
            check(standing, 1, WaitReason::LoggingIn);
            check(standing, 2, reason);
        }
    }

    #[test]
    fn without_any_limit_a_server_is_on_its_way() {
        check(Standing::default(), 7, WaitReason::LoggingIn);
    }

    #[test]
    fn a_server_that_is_down_is_the_reason_if_no_other_is_there() {
        let down = Standing {
            failing: true,
            full: Some(Denied::Pool),
            coming: 1,
            ..Standing::default()
        };
        check(down, 0, WaitReason::ServerDown);
        // Those that are there still serve; more can't be connected, and in a full pool need not be.
        let has_servers = true;
        check(
            Standing {
                has_servers,
                ..down
            },
            0,
            WaitReason::PoolFull,
        );
        let more = Standing {
            has_servers,
            full: None,
            ..down
        };
        check(more, 0, WaitReason::ServerDown);
    }

    #[test]
    fn a_pause_is_the_reason_whatever_else_is_wrong() {
        let paused = Standing {
            paused: true,
            failing: true,
            full: Some(Denied::User),
            ..Standing::default()
        };
        check(paused, 0, WaitReason::Paused);
    }
}
