//! A named client of a scenario: what it sends, and what it gets as text. It hides nothing, and every wait ends.

use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use md5::{Digest, Md5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::fixture::tls::Authority;
use crate::proto::{Conn, Frame, msg, scram};
use crate::render;
use crate::scenario::{head, words};

/// How long a client listens before it says that nothing comes.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// What ended a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Enough,
    Closed,
    Silence,
}

/// How to connect and as whom: the words of a `connect` step.
#[derive(Debug, Default, Clone)]
pub struct Options {
    pub unix: bool,
    pub tls: Option<String>,
    pub cert: Option<String>,
    pub alpn: Option<String>,
    pub password: Option<String>,
    pub console: bool,
    pub parameters: Vec<(String, String)>,
}

impl Options {
    pub fn parse(text: &str) -> Options {
        let mut out = Options::default();
        let mut wants_user = true;
        let mut wants_database = true;
        for word in words(text) {
            match word.split_once('=') {
                None => match word.as_str() {
                    "unix" => out.unix = true,
                    "console" | "stats" => {
                        let user = if word == "console" { "admin" } else { "stats" };
                        (out.unix, out.console) = (true, true);
                        out.password = Some(format!("{user}_pw"));
                        out.parameters.push(("user".into(), user.into()));
                        out.parameters.push(("database".into(), "pgbouncer".into()));
                    }
                    "nouser" => wants_user = false,
                    "nodatabase" => wants_database = false,
                    _ => panic!("connect {text}: what is {word}?"),
                },
                Some(("tls", mode)) => out.tls = Some(mode.to_string()),
                Some(("cert", user)) => out.cert = Some(user.to_string()),
                Some(("alpn", name)) => out.alpn = Some(name.to_string()),
                Some(("password", secret)) => out.password = Some(secret.to_string()),
                Some((key, value)) => out.parameters.push((key.to_string(), value.to_string())),
            }
        }
        let has = |out: &Options, key: &str| out.parameters.iter().any(|(k, _)| k == key);
        out.console |= out
            .parameters
            .iter()
            .any(|(k, v)| k == "database" && v == "pgbouncer");
        if wants_database && !has(&out, "database") {
            out.parameters.insert(0, ("database".into(), "p".into()));
        }
        if wants_user && !has(&out, "user") {
            out.parameters.insert(0, ("user".into(), "u_trust".into()));
        }
        out
    }

    fn user(&self) -> &str {
        let user = self.parameters.iter().find(|(k, _)| k == "user");
        user.map_or("", |(_, v)| v)
    }
}

/// A client, connected or not.
#[derive(Default)]
pub struct Client {
    conn: Option<Conn>,
    /// The body of BackendKeyData.
    pub key: Vec<u8>,
    /// Are replies a console's tables?
    pub console: bool,
}

impl Client {
    /// Opens a connection and says nothing yet.
    pub async fn open(&mut self, port: u16, socket: Option<&Path>) -> Result<(), String> {
        let conn = match socket {
            Some(path) => Conn::try_unix(path).await,
            None => Conn::try_tcp(port).await,
        };
        let conn = conn.map_err(|e| format!("cannot connect: {}", e.kind()))?;
        self.conn = Some(conn);
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        self.conn.is_some()
    }

    /// Connects and logs in. `loud` tells of every parameter.
    pub async fn connect(
        &mut self,
        port: u16,
        socket: &Path,
        options: &Options,
        loud: bool,
    ) -> String {
        self.console = options.console;
        if let Err(why) = self.open(port, options.unix.then_some(socket)).await {
            return why;
        }
        if let Some(mode) = &options.tls
            && let Err(why) = self.start_tls(mode, options).await
        {
            self.conn = None;
            return why;
        }
        let parameters: Vec<(&str, &str)> = options
            .parameters
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        self.send(&msg::startup(&parameters)).await;
        self.log_in(options.user(), options.password.as_deref(), loud)
            .await
    }

    /// TLS: `direct` without asking, anything else with an SSLRequest before.
    async fn start_tls(&mut self, mode: &str, options: &Options) -> Result<(), String> {
        let Some(mut conn) = self.conn.take() else {
            return Err("not connected".to_string());
        };
        if mode != "direct" {
            conn.send(&msg::ssl_request()).await;
            match conn.byte().await {
                Some(b'S') => {}
                Some(other) => return Err(format!("TLS refused: {}", char::from(other))),
                None => return Err("closed".to_string()),
            }
        }
        let secure = conn.into_tls(tls_config(options)).await;
        self.conn = Some(secure.map_err(|_| "TLS handshake failed".to_string())?);
        Ok(())
    }

    /// Upgrades an open connection that has seen its `S`.
    pub async fn upgrade(&mut self, text: &str) -> String {
        match self.start_tls("direct", &Options::parse(text)).await {
            Ok(()) => "secure".to_string(),
            Err(why) => why,
        }
    }

    /// Answers what the other side asks until it is ready or closes.
    pub async fn log_in(&mut self, user: &str, password: Option<&str>, loud: bool) -> String {
        let mut told: Vec<String> = Vec::new();
        let mut parameters: Vec<String> = Vec::new();
        let mut scram_client = None;
        loop {
            let frame = match self.next().await {
                Ok(frame) => frame,
                Err(End::Closed) => {
                    told.push("closed".to_string());
                    break;
                }
                Err(_) => {
                    told.push("(silence)".to_string());
                    break;
                }
            };
            match frame.tag {
                b'R' => {
                    if frame.int() != 0 && frame.int() < 11 || loud {
                        told.push(render::frame(&frame));
                    }
                    match answer(&frame, user, password, &mut scram_client) {
                        Answer::Nothing => {}
                        Answer::Say(bytes) => self.send(&bytes).await,
                        Answer::LeaveWith(why) => {
                            told.push(why);
                            self.conn = None;
                            break;
                        }
                    }
                }
                b'S' => parameters.push(render::frame(&frame)),
                b'K' => {
                    self.key.clone_from(&frame.body);
                    if loud {
                        told.push(render::frame(&frame));
                    }
                }
                b'Z' => {
                    told.push("ready".to_string());
                    break;
                }
                _ => told.push(render::frame(&frame)),
            }
        }
        if loud {
            parameters.sort();
            parameters.retain(|p| !is_versioned(p));
            told.extend(parameters);
        }
        told.join(" ")
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        if let Some(conn) = &mut self.conn {
            conn.send(bytes).await;
        }
    }

    async fn next(&mut self) -> Result<Frame, End> {
        let Some(conn) = &mut self.conn else {
            return Err(End::Closed);
        };
        match tokio::time::timeout(PATIENCE, conn.next_frame()).await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => {
                self.conn = None;
                Err(End::Closed)
            }
            Err(_) => Err(End::Silence),
        }
    }

    /// Frames until `enough` of them.
    pub async fn read(&mut self, mut enough: impl FnMut(&Frame) -> bool) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(frame) => {
                    let done = enough(&frame);
                    frames.push(frame);
                    if done {
                        return (frames, End::Enough);
                    }
                }
                Err(end) => return (frames, end),
            }
        }
    }

    /// Up to a number of ReadyForQuery.
    pub async fn until_ready(&mut self, times: usize) -> (Vec<Frame>, End) {
        let mut seen = 0;
        self.read(|f| {
            seen += usize::from(f.is(b'Z'));
            seen >= times
        })
        .await
    }

    /// Everything up to the end, which may come within a message.
    pub async fn rest(&mut self) -> String {
        let Some(mut conn) = self.conn.take() else {
            return "closed".to_string();
        };
        match tokio::time::timeout(PATIENCE, conn.until_closed_anyhow()).await {
            Ok((frames, cut)) => {
                let text = render::frames(&frames);
                format!("{text} cut: {} closed", cut.escape_ascii())
            }
            Err(_) => "(silence)".to_string(),
        }
    }

    /// One byte, as the answer to an SSLRequest.
    pub async fn byte(&mut self) -> String {
        let Some(conn) = &mut self.conn else {
            return "closed".to_string();
        };
        match tokio::time::timeout(PATIENCE, conn.byte()).await {
            Ok(Some(b)) => format!("{}", char::from(b).escape_default()),
            Ok(None) => {
                self.conn = None;
                "closed".to_string()
            }
            Err(_) => "(silence)".to_string(),
        }
    }

    /// Does nothing come for a while? For the few things that must not happen.
    pub async fn silent_for(&mut self, time: Duration) -> String {
        let Some(conn) = &mut self.conn else {
            return "closed".to_string();
        };
        match tokio::time::timeout(time, conn.next_frame()).await {
            Err(_) => "silent".to_string(),
            Ok(Some(frame)) => render::frame(&frame),
            Ok(None) => {
                self.conn = None;
                "closed".to_string()
            }
        }
    }

    pub async fn shut_down_writing(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.shut_down_writing().await;
        }
    }

    pub fn drop_connection(&mut self) {
        self.conn = None;
    }
}

/// Parameters that depend on the version of PostgreSQL behind.
fn is_versioned(parameter: &str) -> bool {
    parameter.starts_with("S(scram_iterations=") || parameter.starts_with("S(search_path=")
}

enum Answer {
    Nothing,
    Say(Vec<u8>),
    LeaveWith(String),
}

fn answer(
    frame: &Frame,
    user: &str,
    password: Option<&str>,
    exchange: &mut Option<scram::Client>,
) -> Answer {
    let Some(secret) = password else {
        return match frame.int() {
            0 => Answer::Nothing,
            _ => Answer::LeaveWith("(no password, left)".to_string()),
        };
    };
    let text = || String::from_utf8_lossy(&frame.body[4..]).into_owned();
    match frame.int() {
        3 => Answer::Say(msg::password(secret)),
        5 => Answer::Say(msg::password(&md5_answer(user, secret, &frame.body[4..8]))),
        10 => {
            let client = exchange.insert(scram::Client::new(secret));
            Answer::Say(msg::sasl_initial("SCRAM-SHA-256", &client.first()))
        }
        11 => match exchange {
            Some(client) => Answer::Say(msg::sasl_response(&client.last(&text()))),
            None => Answer::LeaveWith("(unasked SASL message)".to_string()),
        },
        12 => match exchange {
            Some(client) if client.verifies(&text()) => Answer::Nothing,
            _ => Answer::LeaveWith("(wrong SCRAM signature)".to_string()),
        },
        _ => Answer::Nothing,
    }
}

/// What a client answers to an md5 request.
fn md5_answer(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = md5_secret(user, password)[3..].to_string();
    let outer = Md5::new().chain_update(inner).chain_update(salt).finalize();
    format!("md5{}", crate::proto_hex(&outer))
}

/// An md5 secret as stored in an `auth_file`.
pub fn md5_secret(user: &str, password: &str) -> String {
    let hash = Md5::new()
        .chain_update(password)
        .chain_update(user)
        .finalize();
    format!("md5{}", crate::proto_hex(&hash))
}

fn tls_config(options: &Options) -> Arc<ClientConfig> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut roots = RootCertStore::empty();
    let authority = Authority::shared();
    let root = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).expect("our own PEM");
    roots.add(root).expect("a certificate");
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &options.cert {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let pair = match name.strip_prefix("stranger:") {
                Some(name) => Authority::new("a stranger").client_cert(name),
                None => authority.client_cert(name),
            };
            let cert = CertificateDer::from_pem_slice(pair.cert_pem.as_bytes()).expect("our PEM");
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("our PEM");
            builder
                .with_client_auth_cert(vec![cert], key)
                .expect("they belong together")
        }
    };
    config.alpn_protocols = options
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Arc::new(config)
}

/// A message by its name, as bytes; `None` when there is no such message.
pub fn message(text: &str, key_of: &dyn Fn(&str) -> Vec<u8>) -> Option<Vec<u8>> {
    let (verb, rest) = head(text);
    let w = words(rest);
    let word = |at: usize| w.get(at).map_or("", String::as_str);
    Some(match verb {
        "Query" => msg::query(rest),
        "Parse" => parse_message(rest),
        "Bind" => bind_message(&w),
        "Describe" => msg::describe(word(0).as_bytes()[0], word(1)),
        "Close" => msg::close(word(0).as_bytes()[0], word(1)),
        "Execute" => msg::execute(word(0), word(1).parse().unwrap_or(0)),
        "Sync" => msg::sync(),
        "Flush" => msg::flush(),
        "Terminate" => msg::terminate(),
        "Password" => msg::password(word(0)),
        "SASLInitial" => msg::sasl_initial(word(0), word(1)),
        "SASLResponse" => msg::sasl_response(word(0)),
        "CopyData" => msg::copy_data(word(0).as_bytes()),
        "CopyDone" => msg::copy_done(),
        "CopyFail" => msg::typed(b'f', format!("{}\0", word(0)).as_bytes()),
        "FunctionCall" => msg::typed(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        "SSLRequest" => msg::ssl_request(),
        "GSSENCRequest" => msg::gss_request(),
        "Startup" => startup(msg::PROTOCOL_3_0, &w),
        "Version" => {
            let (major, minor) = word(0).split_once('.').expect("Version MAJOR.MINOR");
            let number = |t: &str| t.parse::<i32>().expect("a number");
            startup((number(major) << 16) | number(minor), &w[1..])
        }
        "Cancel" => msg::cancel(&key_of(word(0))),
        "CancelKey" => msg::cancel(&unhex(rest)),
        "Typed" => msg::typed(word(0).as_bytes()[0], &unhex(&w[1..].join(""))),
        "Untyped" => msg::untyped(word(0).parse().expect("a code"), &unhex(&w[1..].join(""))),
        "Hex" => unhex(rest),
        "Text" => w.concat().into_bytes(),
        _ => return None,
    })
}

fn startup(version: i32, pairs: &[String]) -> Vec<u8> {
    let pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|p| p.split_once('=').expect("KEY=VALUE"))
        .collect();
    msg::startup_version(version, &pairs)
}

/// `NAME [oid,oid] SQL`
fn parse_message(rest: &str) -> Vec<u8> {
    let (name, mut sql) = head(rest);
    let mut types = Vec::new();
    if let Some(list) = sql.strip_prefix('[') {
        let (oids, after) = list.split_once(']').expect("[oid,oid]");
        types = oids
            .split(',')
            .filter(|t| !t.is_empty())
            .map(|t| t.trim().parse().expect("an oid"))
            .collect();
        sql = after.trim_start();
    }
    msg::parse(name.trim_matches('"'), sql, &types)
}

/// `[PORTAL [STATEMENT [VALUE…]]]`, all text; `NULL` is null.
fn bind_message(w: &[String]) -> Vec<u8> {
    let word = |at: usize| w.get(at).map_or("", String::as_str);
    let values: Vec<Option<&[u8]>> = w
        .iter()
        .skip(2)
        .map(|v| (v != "NULL").then_some(v.as_bytes()))
        .collect();
    msg::bind(word(0), word(1), &values)
}

/// Bytes from hexadecimal digits; blanks are free.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair: String = pair.iter().collect();
            u8::from_str_radix(&pair, 16).expect("hexadecimal digits")
        })
        .collect()
}
