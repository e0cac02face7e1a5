//! Whether the program is alive, ready and started, and why not. Pure.
//!
//! *Alive*: the main thread and every worker answer. Whoever asks may restart us if not, so nothing else counts.
//!
//! *Ready*: a new client can be served. What would take every instance out of service at once, and so make an outage of something
//! that clients would not have noticed, is said but does not count:
//!
//! - Everything is paused: clients are to wait, which is what PAUSE is for, and not to be turned away.
//! - A new version of the configuration was refused: the last good one is in force.
//! - A server refuses some user or database: others are served.
//!
//! What counts: the start is complete, no end has been asked for, and at least one server is connected, or could be.

use std::fmt::Write as _;

use super::vitals::{Condition, HostHealth, PoolHealth};

/// Pools that are named in an answer.
const POOLS_TOLD: usize = 20;

/// An answer about health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// All is well.
    pub is_well: bool,
    /// What is said: one fact a line, the most important first.
    pub lines: Vec<String>,
}

impl Verdict {
    fn well(word: &str) -> Verdict {
        Verdict {
            is_well: true,
            lines: vec![word.to_owned()],
        }
    }

    fn unwell(word: &str, reasons: impl IntoIterator<Item = String>) -> Verdict {
        let mut lines = vec![word.to_owned()];
        lines.extend(reasons);
        Verdict {
            is_well: false,
            lines,
        }
    }

    /// As it is sent.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            // A server's error may have several lines; writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.replace(['\n', '\r'], " "));
        }
        text
    }
}

/// `/livez`, from the names of threads that did not answer.
pub fn alive(silent: &[String]) -> Verdict {
    if silent.is_empty() {
        return Verdict::well("alive");
    }
    let reasons = silent.iter().map(|name| format!("{name} does not answer"));
    Verdict::unwell("not alive", reasons)
}

/// `/startupz`
pub fn started(condition: &Condition) -> Verdict {
    match condition.started {
        true => Verdict::well("started"),
        false => Verdict::unwell("not started", []),
    }
}

/// True if it has to be known whether servers can be reached: nobody is connected to one.
pub fn asks_for_hosts(condition: &Condition) -> bool {
    may_serve(condition).is_ok() && !condition.pools.iter().any(|pool| pool.has_servers)
}

/// `/readyz`; `hosts` if [`asks_for_hosts`].
pub fn ready(condition: &Condition, hosts: &[HostHealth]) -> Verdict {
    let reasons = match may_serve(condition) {
        Err(reason) => vec![reason.to_owned()],
        Ok(()) => no_servers(condition, hosts),
    };
    let mut verdict = match reasons.is_empty() {
        true => Verdict::well("ready"),
        false => Verdict::unwell("not ready", reasons),
    };
    verdict.lines.extend(notes(condition));
    verdict
}

/// What has to hold before servers are looked at.
fn may_serve(condition: &Condition) -> Result<(), &'static str> {
    match () {
        () if condition.shutting_down => Err("shutting down"),
        () if !condition.started => Err("starting"),
        () => Ok(()),
    }
}

/// Why there is no server to serve clients with; empty if there is one, or may be.
fn no_servers(condition: &Condition, hosts: &[HostHealth]) -> Vec<String> {
    if condition.pools.iter().any(|pool| pool.has_servers) {
        return Vec::new();
    }
    if !hosts.is_empty() && hosts.iter().all(|host| host.error.is_some()) {
        let told = hosts.iter().take(POOLS_TOLD);
        let told = told.filter_map(|host| {
            Some(format!(
                "no connection to {}: {}",
                host.host,
                host.error.as_ref()?
            ))
        });
        return told.collect();
    }
    // Somebody accepts connections. If every pool in use has just been turned away by a server that serves nobody (one that is
    // starting up, say), that is not enough.
    let is_turned_away = |pool: &PoolHealth| {
        let failure = pool.failure.as_ref();
        failure.is_some_and(|failure| failure.is_recent && !failure.is_refusal)
    };
    if condition.pools.is_empty() || !condition.pools.iter().all(is_turned_away) {
        return Vec::new();
    }
    failures(condition).collect()
}

/// The failures of pools, a line each.
fn failures(condition: &Condition) -> impl Iterator<Item = String> {
    let failed = condition.pools.iter().filter_map(|pool| {
        let failure = pool.failure.as_ref()?;
        Some(format!(
            "pool {}/{}: {}",
            pool.database, pool.user, failure.text
        ))
    });
    failed.take(POOLS_TOLD)
}

/// What is worth knowing and does not count.
fn notes(condition: &Condition) -> Vec<String> {
    let mut notes = Vec::new();
    if condition.paused && !condition.shutting_down {
        notes.push("note: everything is paused; clients wait".to_owned());
    }
    if !condition.reloads.last_successful {
        let note = "note: the last configuration was refused; the one before it is in force";
        notes.push(note.to_owned());
    }
    notes
}

/// What `/readyz?verbose` says besides.
pub fn details(condition: &Condition, hosts: &[HostHealth]) -> Vec<String> {
    let host = |host: &HostHealth| match &host.error {
        None => format!("host {}: accepts connections", host.host),
        Some(error) => format!("host {}: {error}", host.host),
    };
    let pool = |pool: &PoolHealth| {
        let state = match (&pool.failure, pool.has_servers) {
            (_, true) => "connected",
            (Some(failure), false) => &failure.text,
            (None, false) => "no server, none needed",
        };
        format!("pool {}/{}: {state}", pool.database, pool.user)
    };
    let hosts = hosts.iter().map(host);
    let pools = condition.pools.iter().take(POOLS_TOLD).map(pool);
    hosts.chain(pools).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::super::vitals::Failure;
    use super::*;
    use crate::admin::rows::Reloads;

    fn condition() -> Condition {
        Condition {
            started: true,
            shutting_down: false,
            draining: false,
            paused: false,
            since: Instant::now(),
            reloads: Reloads::begin(SystemTime::now()),
            pools: Vec::new(),
        }
    }

    fn pool(has_servers: bool, failure: Option<(&str, bool, bool)>) -> PoolHealth {
        PoolHealth {
            database: "d".to_owned(),
            user: "u".to_owned(),
            has_servers,
            failure: failure.map(|(text, is_refusal, is_recent)| Failure {
                text: text.to_owned(),
                is_refusal,
                is_recent,
            }),
            connections: 0,
            connections_max: 0,
        }
    }

    fn host(error: Option<&str>) -> HostHealth {
        HostHealth {
            host: "h:1".to_owned(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn whoever_does_not_answer_is_named() {
        assert_eq!(alive(&[]).text(), "alive\n");
        let verdict = alive(&["worker-1".to_owned()]);
        assert!(!verdict.is_well);
        assert_eq!(verdict.text(), "not alive\nworker-1 does not answer\n");
    }

    #[test]
    fn an_end_or_a_beginning_is_not_ready() {
        let ending = Condition {
            shutting_down: true,
            paused: true,
            pools: vec![pool(true, None)],
            ..condition()
        };
        assert!(!asks_for_hosts(&ending));
        assert_eq!(ready(&ending, &[]).text(), "not ready\nshutting down\n");
        let starting = Condition {
            started: false,
            ..condition()
        };
        assert_eq!(ready(&starting, &[]).text(), "not ready\nstarting\n");
        assert!(!started(&starting).is_well && started(&ending).is_well);
    }

    #[test]
    fn what_waits_or_goes_on_is_ready_with_a_note() {
        let mut paused = Condition {
            paused: true,
            pools: vec![pool(true, None)],
            ..condition()
        };
        paused.reloads.note(false, SystemTime::now());
        let verdict = ready(&paused, &[]);
        assert!(verdict.is_well);
        assert_eq!(verdict.lines.len(), 3, "{verdict:?}");
    }

    #[test]
    fn servers_count_when_nobody_is_connected() {
        let with = |pools: &[PoolHealth], hosts: &[HostHealth]| {
            let condition = Condition {
                pools: pools.to_vec(),
                ..condition()
            };
            assert_eq!(
                asks_for_hosts(&condition),
                !pools.iter().any(|pool| pool.has_servers)
            );
            ready(&condition, hosts).is_well
        };
        let (up, down) = (host(None), host(Some("connection refused")));
        let recent = |is_refusal| pool(false, Some(("no", is_refusal, true)));
        // Nothing is configured, or one of the hosts is there.
        assert!(with(&[], &[]) && with(&[], &[down.clone(), up.clone()]));
        assert!(!with(&[], std::slice::from_ref(&down)));
        // A connected server counts for more than a host that takes no more connections.
        assert!(with(
            &[pool(true, None), recent(false)],
            std::slice::from_ref(&down)
        ));
        assert!(!with(&[pool(false, None)], std::slice::from_ref(&down)));
        // It accepts connections, and serves nobody.
        let up = std::slice::from_ref(&up);
        assert!(!with(&[recent(false)], up));
        assert!(with(&[recent(false), pool(false, None)], up));
        // It serves others; or nobody has tried since.
        assert!(with(&[recent(true)], up));
        assert!(with(&[pool(false, Some(("no", false, false)))], up));
    }

    #[test]
    fn a_reason_has_one_line() {
        let down = host(Some("a\nHTTP/1.1 200 OK\r\nb"));
        let text = ready(&condition(), &[down]).text();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
