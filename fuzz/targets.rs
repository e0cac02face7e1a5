//! The fuzz targets: each hands untrusted bytes to one entrance of the library.
//!
//! Included by the binaries in `fuzz_targets/` and by `tests/fuzz_corpus.rs`, which replays the corpus. A target may assert
//! what must hold; anything else that goes wrong is a panic or a time-out.

// Each binary includes all targets and calls one.
#![allow(dead_code)]

use std::path::Path;

use pgweir::auth::hba::{Caller, Hba, Origin};
use pgweir::auth::ident::IdentMaps;
use pgweir::auth::scram::{
    ClientExchange, Nonce, ScramVerifier, ServerExchange, ServerSecret, sasl,
};
use pgweir::auth::{AuthFile, Secret};
use pgweir::client::deliver::{self, Deliver};
use pgweir::client::forward::{Forward, Rules, Stop};
use pgweir::client::statements::{Counts, Statements};
use pgweir::server::link::ServerLink;
use pgweir::server::params::{Interner, Tracked};
use pgweir::server::prepared::StatementCache;
use pgweir::wire::splice::Splice;
use pgweir::wire::{options, startup};

/// A target, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, for replaying.
pub const ALL: &[Target] = &[
    ("scram_client_first", scram_client_first),
    ("scram_server_first", scram_server_first),
    ("auth_file", auth_file),
    ("hba_file", hba_file),
    ("ident_file", ident_file),
    ("startup_packet", startup_packet),
    ("startup_options", startup_options),
    ("forward", forward),
    ("deliver", deliver),
];

/// A client's SASLInitialResponse body, then (after a line feed) its final message. No such client may get in.
pub fn scram_client_first(data: &[u8]) {
    let (initial, last) = split(data);
    let message = sasl::client_first(initial).unwrap_or(initial);
    let secret = ServerSecret::known(ScramVerifier::derive(b"pencil", b"salt", 1).into());
    let server = ServerExchange::new(secret, nonce("server"));
    if let Ok((_, server)) = server.on_client_first(message) {
        assert!(server.on_client_final(last).is_err());
    }
}

/// A server's first message, then (after a line feed) its final one. No such server may be believed.
pub fn scram_server_first(data: &[u8]) {
    let (first, last) = split(data);
    let _ = sasl::offers_scram(first);
    // Keys, not a password: a fuzzer should not spend its time on a million rounds.
    let keys = pgweir::auth::scram::ScramKeys::derive(b"pencil", b"salt", 1);
    let client = ClientExchange::from_keys(keys, nonce("client"));
    if let Ok((_, client)) = client.on_server_first(first) {
        assert!(client.on_server_final(last).is_err());
    }
}

/// An auth_file; each line is also read as a secret.
pub fn auth_file(data: &[u8]) {
    let (file, problems) = AuthFile::parse(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(file.len() + problems.len() <= lines);
    for line in data.split(|byte| *byte == b'\n') {
        Secret::parse(line);
    }
}

/// An auth_hba_file; what follows a zero byte is in every file that it includes.
pub fn hba_file(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0);
    let (main, included) = end.map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let load = |main: &[u8]| {
        let mut read = |path: &Path| {
            let is_main = path == Path::new("/hba");
            Ok(if is_main { main } else { included }.to_vec())
        };
        Hba::load(Path::new("/hba"), None, &mut read)
    };
    let broken = [main, b"\nlocal all all rejct"].concat();
    assert!(load(&broken).is_err(), "a broken line refuses the file");
    let Ok(hba) = load(main) else { return };
    let lines = main.split(|byte| *byte == b'\n').count();
    assert!(hba.rules().len() <= lines);
    for tls in [false, true] {
        let address = [10, 0, 0, 1].into();
        let caller = Caller {
            origin: Origin::Tcp { address, tls },
            database: b"d",
            user: b"u",
            replication: false,
        };
        // A door at the front lets in nobody whom the first rule does not want.
        let closed = [b"host all all 10.0.0.0/8 reject\n", main].concat();
        let closed = load(&closed).expect("one good line more");
        assert_eq!(closed.find(&caller).map(|rule| rule.line), Some(1));
        assert!(hba.find(&caller).is_none_or(|rule| !rule.is_local()));
    }
}

/// An auth_ident_file.
pub fn ident_file(data: &[u8]) {
    if let Ok(maps) = IdentMaps::parse(data, Path::new("ident")) {
        for word in data.split(|byte| byte.is_ascii_whitespace()) {
            if let Some(map) = maps.get(word) {
                assert!(!map.permits(b"", b"") && !map.permits(b"a\nb", b"u"));
            }
        }
    }
    let broken = [data, b"\nm /regex u"].concat();
    let parsed = IdentMaps::parse(&broken, Path::new("ident"));
    assert!(parsed.is_err(), "a broken line refuses the file");
}

/// A client's first packet.
pub fn startup_packet(data: &[u8]) {
    if let Some(first) = data.first_chunk() {
        let _ = startup::packet_len(*first);
    }
    if let Ok(startup::FirstPacket::Startup(startup)) = startup::parse(data) {
        let bytes = |pairs: &[(Vec<u8>, Vec<u8>)]| -> usize {
            pairs.iter().map(|(k, v)| k.len() + v.len() + 2).sum()
        };
        assert!(bytes(&startup.parameters) < data.len());
    }
}

/// The value of the `options` parameter.
pub fn startup_options(data: &[u8]) {
    if let Ok(settings) = options::parse(data) {
        assert!(settings.iter().all(|(name, _)| !name.is_empty()));
    }
}

/// A client's bytes; the first one says how they are cut.
pub fn forward(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let mut pair = Pair::default();
    pair.forward(data, usize::from(*cut) + 1);
}

/// A server's bytes, behind those of its client and a zero-length message with the tag `!`; the first byte says how they are cut.
pub fn deliver(data: &[u8]) {
    const BETWEEN: &[u8] = b"!\0\0\0\x04";
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let at = data.windows(BETWEEN.len()).position(|part| part == BETWEEN);
    let (client, server) = data.split_at(at.unwrap_or(0));
    let mut pair = Pair::default();
    pair.forward(client, usize::MAX);
    let server = server.strip_prefix(BETWEEN).unwrap_or(server);
    pair.deliver(server, usize::from(*cut) + 1);
}

/// A client and its server.
struct Pair {
    link: ServerLink,
    statements: Statements,
    cache: StatementCache,
}

impl Default for Pair {
    fn default() -> Self {
        Pair {
            link: ServerLink::new(Default::default(), 0),
            statements: Statements::default(),
            cache: StatementCache::default(),
        }
    }
}

/// The largest message in these targets; small, so that its limits are met.
const PACKET_MAX: u32 = 1 << 16;

impl Pair {
    fn forward(&mut self, mut data: &[u8], cut: usize) {
        let (mut held, mut out) = (Vec::new(), Vec::new());
        while !data.is_empty() {
            let (now, later) = data.split_at(cut.min(data.len()));
            held.extend_from_slice(now);
            data = later;
            out.clear();
            let mut splice = Splice::new(&held, &mut out);
            let walk = Forward {
                rules: Rules {
                    rewrite: true,
                    max_prepared: 2,
                    max_packet_size: PACKET_MAX,
                    refuse_simple: false,
                },
                statements: &mut self.statements,
                link: &mut self.link,
                cache: &self.cache,
                counts: &mut Counts::default(),
            }
            .run(&mut splice);
            let (_, consumed) = splice.finish();
            held.drain(..consumed);
            match walk {
                Ok(Stop::Input) => assert!(held.len() < 5),
                Ok(Stop::NeedBytes(need)) => assert!(need > held.len()),
                Ok(Stop::Busy) => {}
                Ok(Stop::Terminate) | Err(_) => return,
            }
            deliver::settle(&mut self.link, &mut self.statements, &mut Vec::new());
            assert!(self.link.prepared.len() <= 2);
        }
    }

    fn deliver(&mut self, mut data: &[u8], cut: usize) {
        let (mut held, mut out) = (Vec::new(), Vec::new());
        let (tracked, mut params) = (Tracked::new(&[]), Default::default());
        while !data.is_empty() {
            let (now, later) = data.split_at(cut.min(data.len()));
            held.extend_from_slice(now);
            data = later;
            out.clear();
            let mut splice = Splice::new(&held, &mut out);
            let walk = Deliver {
                link: &mut self.link,
                statements: &mut self.statements,
                params: &mut params,
                tracked: &tracked,
                interner: &mut Interner::default(),
                max_packet_size: i32::MAX as u32,
            }
            .run(&mut splice);
            let (_, consumed) = splice.finish();
            held.drain(..consumed);
            match walk {
                Ok(findings) => {
                    assert!(held.len() < 5 || findings.need > held.len());
                    assert!(findings.need as u64 <= deliver::UNDERSTOOD_LEN_MAX);
                }
                Err(_) => return,
            }
        }
    }
}

fn nonce(text: &str) -> Nonce {
    Nonce::parse(text).expect("a valid nonce")
}

/// Both sides of the first line feed.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    end.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}
