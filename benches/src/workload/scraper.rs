//! Somebody who reads metrics once a second, as Prometheus does, but more often.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::{Doing, Result, failed};

const EVERY: Duration = Duration::from_secs(1);
const TIME_MAX: Duration = Duration::from_secs(10);

/// A thread that reads until it is told to stop.
pub struct Scraper {
    stop: Sender<()>,
    thread: JoinHandle<Result<(f64, f64)>>,
}

impl Scraper {
    /// Begins at once.
    pub fn start(port: u16) -> Scraper {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (mut scrapes, mut time) = (0.0, Duration::ZERO);
            loop {
                let began = Instant::now();
                scrape(port)?;
                time += began.elapsed();
                scrapes += 1.0;
                let rest = EVERY.saturating_sub(began.elapsed());
                if stopped.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                    return Ok((scrapes, time.as_secs_f64() * 1e6 / scrapes));
                }
            }
        });
        Scraper { stop, thread }
    }

    /// How many there were, and how many µs one took.
    pub fn finish(self) -> Result<(f64, f64)> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|_| failed("the scraper panicked"))
    }
}

fn scrape(port: u16) -> Result<()> {
    let mut answer = Vec::new();
    let mut exchange = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(TIME_MAX))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        stream.read_to_end(&mut answer)
    };
    exchange().doing("reading metrics")?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => failed("metrics were refused"),
    }
}
