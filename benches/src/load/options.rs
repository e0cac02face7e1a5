//! What the command lines of all kinds have in common.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::error::LoadError;

/// Whom to ask, as whom, and what.
#[derive(Args, Clone, Debug)]
pub struct Peer {
    /// Host name or address, or the folder of a Unix socket
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port
    #[arg(long, default_value_t = 5432)]
    pub port: u16,
    /// User
    #[arg(long, default_value = "postgres")]
    pub user: String,
    /// Password, for whatever the server asks for: SCRAM-SHA-256, md5 or in clear
    #[arg(long, default_value = "")]
    pub password: String,
    /// Database
    #[arg(long, default_value = "postgres")]
    pub database: String,
    /// Whether to speak TLS; the server's certificate is not looked at
    #[arg(long, value_enum, default_value_t = Tls::Off)]
    pub tls: Tls,
    /// What each query is
    #[arg(long, default_value = "SELECT 1")]
    pub query: String,
    /// How queries are sent; the messages are those that libpq sends (and so pgbench)
    #[arg(long, value_enum, default_value_t = Protocol::Simple)]
    pub protocol: Protocol,
}

/// How many ask, and how long.
#[derive(Args, Clone, Debug)]
pub struct Crowd {
    /// Clients
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Threads that the clients are spread over
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Length of the load in seconds, warm-up excluded
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of the same load before, which are not counted: the pooler opens its servers
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// When all are logged in, print {"event":"connected"} and wait for a line on standard input (or its end) before the load begins
    #[arg(long)]
    pub announce: bool,
}

/// TLS or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tls {
    /// Plain
    Off,
    /// TLS, or an error
    Require,
}

/// How queries are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Query
    Simple,
    /// Parse, Bind, Describe, Execute, Sync, under the empty names
    Extended,
    /// Parse once after the login, then Bind, Describe, Execute, Sync
    Prepared,
}

impl Crowd {
    /// Nothing is zero, no thread is without a client.
    ///
    /// # Errors
    /// What is not so.
    pub fn checked(&self) -> Result<Crowd, LoadError> {
        let bad = |text: &str| Err(LoadError::Options(text.into()));
        if self.clients == 0 || self.threads == 0 {
            return bad("at least one client and one thread");
        }
        if Duration::try_from_secs_f64(self.seconds).is_err() || self.seconds <= 0.0 {
            return bad("--seconds must be above zero");
        }
        if Duration::try_from_secs_f64(self.warm_up).is_err() {
            return bad("--warm-up must not be below zero");
        }
        Ok(Crowd {
            threads: self.threads.min(self.clients),
            ..self.clone()
        })
    }

    /// Length of the load.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Length of what is not counted before it.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    /// How many clients the thread of this index has: they differ by one at most.
    pub fn share(&self, thread: usize) -> usize {
        self.clients / self.threads + usize::from(thread < self.clients % self.threads)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn crowd(clients: usize, threads: usize) -> Crowd {
        Crowd {
            clients,
            threads,
            seconds: 1.0,
            warm_up: 0.0,
            announce: false,
        }
    }

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (clients, threads) in [(1, 1), (7, 2), (8, 3), (500, 7)] {
            let crowd = crowd(clients, threads);
            let shares: Vec<usize> = (0..threads).map(|i| crowd.share(i)).collect();
            assert_eq!(shares.iter().sum::<usize>(), clients);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn no_thread_is_without_a_client() {
        assert_eq!(crowd(1, 8).checked().unwrap().threads, 1);
    }

    #[test]
    fn the_impossible_is_refused() {
        assert!(crowd(0, 1).checked().is_err());
        assert!(crowd(1, 0).checked().is_err());
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let crowd = Crowd {
                seconds,
                ..crowd(1, 1)
            };
            assert!(crowd.checked().is_err(), "{seconds}");
        }
    }
}
