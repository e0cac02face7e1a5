//! A clock that ticks finer than a runtime's timers.
//!
//! tokio's timers are rounded up to a millisecond, which would be most of the latency that an open loop wants to see. A timerfd
//! wakes the same epoll_wait within some 50 µs and, being periodic, costs one read per tick; spinning would be finer still, and
//! would take the processor away from what is measured.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks at a constant rate; ticks that nobody waited for are one.
pub struct Ticker(AsyncFd<Timer>);

/// Only to be an `AsRawFd`, which tokio wants.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Ticker {
    /// Begins now; `period` must not be zero. To be called within a runtime.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(period: Duration) -> io::Result<Ticker> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let expiration = Expiration::Interval(TimeSpec::from_duration(period));
        timer.set(expiration, TimerSetTimeFlags::empty())?;
        // SAFETY: `Timer` owns its timerfd, which is open from its making to its drop; nothing here replaces it or takes it out, so
        // `as_raw_fd` always gives the same open descriptor, and the `AsyncFd`, which drops the `Timer` last, never outlives it.
        let ready = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?;
        Ok(Ticker(ready))
    }

    /// Waits for the next tick, or returns at once if one or more have passed since the last call.
    ///
    /// # Errors
    /// None is known; reading a timerfd is what could fail.
    pub async fn tick(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| match timer.get_ref().0.wait() {
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                other => other.map_err(io::Error::from),
            });
            if let Ok(done) = read {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn ticks_come_no_faster_than_asked_for() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            let ticker = Ticker::new(Duration::from_micros(200)).unwrap();
            for _ in 0..20 {
                ticker.tick().await.unwrap();
            }
            assert!(began.elapsed() >= Duration::from_millis(4));
        });
    }
}
