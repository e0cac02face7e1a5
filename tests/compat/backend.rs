//! Servers that speak from a script written in the scenario.

use std::sync::Arc;

use tokio::sync::watch;

use crate::fixture::{Peer, Script};
use crate::proto::backend;
use crate::proto::msg::typed;
use crate::scenario::{head, words};

/// A script that is being played.
pub struct Backend {
    pub script: Script,
    go: watch::Sender<bool>,
}

impl Backend {
    /// Lets every connection go on that has come to the line `held`, or will.
    pub fn go(&self) {
        self.go.send_replace(true);
    }
}

/// Starts to play a script. Lines after `--` are for all connections but the first; without it, all are served alike.
pub async fn start(lines: &[String]) -> Backend {
    let (go, may_go) = watch::channel(false);
    let mut parts = lines.split(|l| l == "--").map(<[String]>::to_vec);
    let first = parts.next().unwrap_or_default();
    let later = parts.next().unwrap_or_else(|| first.clone());
    let parts = Arc::new((first, later));
    let script = Script::start(move |peer| {
        let (parts, may_go) = (parts.clone(), may_go.clone());
        async move {
            let lines = if peer.number == 0 { &parts.0 } else { &parts.1 };
            play(peer, lines, may_go).await
        }
    });
    let script = script.await;
    Backend { script, go }
}

async fn play(mut peer: Peer, lines: &[String], mut may_go: watch::Receiver<bool>) -> Option<()> {
    for line in lines {
        match line.as_str() {
            "held" => drop(may_go.wait_for(|go| *go).await.ok()?),
            _ => step(&mut peer, line).await?,
        }
    }
    Some(())
}

async fn step(peer: &mut Peer, line: &str) -> Option<()> {
    let (verb, rest) = head(line);
    match verb {
        "startup" => {
            peer.startup().await?;
        }
        "login" => peer.log_in().await?,
        "message" => {
            peer.message().await?;
        }
        "query" => {
            peer.query().await?;
        }
        "echo" => peer.echo().await?,
        "hang" => peer.hang().await?,
        "welcome" => peer.send(backend::welcome()).await?,
        "close" => return None,
        _ => peer.send(bytes(verb, rest)).await?,
    }
    Some(())
}

fn bytes(verb: &str, rest: &str) -> Vec<u8> {
    let w = words(rest);
    let word = |at: usize| w.get(at).map_or("", String::as_str);
    match verb {
        "ok" => backend::auth_ok(),
        "auth" => backend::auth(
            word(0).parse().expect("a code"),
            &super::client::unhex(word(1)),
        ),
        "sasl" => backend::sasl_mechanisms(&w.iter().map(String::as_str).collect::<Vec<_>>()),
        "sasl-continue" => backend::auth(11, word(0).as_bytes()),
        "parameter" => backend::parameter(word(0), word(1)),
        "key" => backend::key(4711, 42),
        "ready" => backend::ready(word(0).bytes().next().unwrap_or(b'I')),
        "error" => backend::error(&fields(&w)),
        "notice" => backend::notice(rest),
        "value" => backend::value(rest),
        "complete" => backend::complete(rest),
        "typed" => typed(
            word(0).as_bytes()[0],
            &super::client::unhex(&w[1..].join("")),
        ),
        "hex" => super::client::unhex(rest),
        "text" => w.concat().into_bytes(),
        _ => panic!("a scripted server knows no {verb}"),
    }
}

/// `S=FATAL C=53300 M="too many"`
fn fields(w: &[String]) -> Vec<(u8, &str)> {
    w.iter()
        .map(|field| {
            let (code, value) = field.split_once('=').expect("CODE=VALUE");
            (code.as_bytes()[0], value)
        })
        .collect()
}
