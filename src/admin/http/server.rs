//! From a request to its answer.
//!
//! What is asked of the workers is remembered for a moment: however many ask, the workers are asked a few times a second.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::TEXT_FORMAT;
use prometheus::process_collector::ProcessCollector;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::families::Families;
use super::health::{self, Verdict};
use super::page;
use super::pgbouncer::{self, Shown};
use super::pgweir;
use super::process;
use super::recent::Recent;
use super::snapshot::{Snapshot, gather};
use super::status;
use super::vitals::Vitals;

/// How long the workers' answers are good. Nobody looks more often.
pub const GOOD_FOR: Duration = Duration::from_millis(250);
/// How long a thread may take to answer before it counts as stuck. Kubernetes gives up on a probe after a second.
pub const ANSWER_MAX: Duration = Duration::from_millis(600);
/// How long a scrape may wait for the workers. Prometheus waits for ten seconds.
pub const GATHER_MAX: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";
/// What texts may do in a browser: nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Something that was found out, and when.
struct Remembered<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Remembered<T> {
    fn nothing() -> Remembered<T> {
        Remembered(Mutex::new(None))
    }

    /// What is known, if that is no older than [`GOOD_FOR`]; else what is found out now. Whoever comes meanwhile waits for the same.
    async fn get(&self, find: impl Future<Output = T>) -> T {
        let mut known = self.0.lock().await;
        if let Some((at, value)) = &*known
            && at.elapsed() < GOOD_FOR
        {
            return value.clone();
        }
        let found = find.await;
        *known = Some((Instant::now(), found.clone()));
        found
    }
}

/// What is asked of the program, and what is remembered of its answers.
pub struct Server<P> {
    program: Arc<P>,
    snapshot: Remembered<Result<Arc<Snapshot>, String>>,
    metrics: Remembered<Result<Bytes, String>>,
    silent: Remembered<Vec<String>>,
    shown: RefCell<Shown>,
    recent: RefCell<Recent>,
    process: ProcessCollector,
}

impl<P: Vitals> Server<P> {
    /// For this program.
    pub fn new(program: Arc<P>) -> Server<P> {
        Server {
            program,
            snapshot: Remembered::nothing(),
            metrics: Remembered::nothing(),
            silent: Remembered::nothing(),
            shown: RefCell::default(),
            recent: RefCell::default(),
            process: ProcessCollector::for_self(),
        }
    }

    /// The answer to a request.
    pub async fn answer<B: hyper::body::Body>(&self, request: Request<B>) -> Answer {
        let verbose = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("verbose"));
        match (request.method(), request.uri().path()) {
            _ if !request.body().is_end_stream() => {
                refuse(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here")
            }
            (&Method::GET | &Method::HEAD, path) => self.page(path, verbose).await,
            _ => {
                let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
                let allowed = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(header::ALLOW, allowed);
                answer
            }
        }
    }

    async fn page(&self, path: &str, verbose: bool) -> Answer {
        match path {
            "/metrics" => match self.metrics().await {
                Ok(text) => respond(StatusCode::OK, TEXT_FORMAT, NOTHING, text),
                Err(reason) => refuse(StatusCode::SERVICE_UNAVAILABLE, &reason),
            },
            "/livez" => verdict(&health::alive(&self.silent().await)),
            "/readyz" => verdict(&self.ready(verbose).await),
            "/startupz" => verdict(&health::started(&self.program.condition())),
            "/" => respond(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page::policy(),
                page::PAGE,
            ),
            "/status.json" => match self.status().await {
                Ok(text) => respond(StatusCode::OK, "application/json", NOTHING, text),
                Err(reason) => refuse(StatusCode::SERVICE_UNAVAILABLE, &reason),
            },
            _ => refuse(
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez, /readyz, /startupz, / and /status.json",
            ),
        }
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, String> {
        let gathered = async {
            match timeout(GATHER_MAX, gather(&*self.program)).await {
                Ok(snapshot) => Ok(Arc::new(snapshot)),
                Err(_) => Err(self.who_is_late().await),
            }
        };
        self.snapshot.get(gathered).await
    }

    async fn who_is_late(&self) -> String {
        let silent = self.silent().await;
        match silent.is_empty() {
            true => format!("not all was gathered within {} s", GATHER_MAX.as_secs()),
            false => format!("no answer from {}", silent.join(", ")),
        }
    }

    async fn silent(&self) -> Vec<String> {
        self.silent.get(self.program.silent(ANSWER_MAX)).await
    }

    async fn metrics(&self) -> Result<Bytes, String> {
        let encoded = async {
            let ready = self.ready(false).await.is_well;
            let snapshot = self.snapshot().await?;
            Ok(Bytes::from(self.encode(&snapshot, ready)))
        };
        self.metrics.get(encoded).await
    }

    fn encode(&self, snapshot: &Snapshot, ready: bool) -> Vec<u8> {
        let mut shown = self.shown.borrow_mut();
        shown.renew(snapshot);
        let mut families = Families::default();
        pgbouncer::add(&mut families, snapshot, &shown);
        pgweir::add(&mut families, snapshot, &shown, ready);
        families.extend(process::collect(&self.process));
        families.encode()
    }

    async fn ready(&self, verbose: bool) -> Verdict {
        let condition = self.program.condition();
        let hosts = match verbose || health::asks_for_hosts(&condition) {
            true => self.program.hosts().await,
            false => Vec::new(),
        };
        // While hosts were tried, the end may have been asked for.
        let condition = self.program.condition();
        let mut verdict = health::ready(&condition, &hosts);
        if verbose {
            verdict.lines.extend(health::details(&condition, &hosts));
        }
        verdict
    }

    async fn status(&self) -> Result<Vec<u8>, String> {
        let ready = self.ready(false).await;
        let snapshot = self.snapshot().await?;
        let mut recent = self.recent.borrow_mut();
        recent.note(&snapshot);
        let status = status::status(&snapshot, &recent, &ready, Instant::now());
        serde_json::to_vec(&status).map_err(|error| error.to_string())
    }
}

fn verdict(verdict: &Verdict) -> Answer {
    let status = match verdict.is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    respond(status, TEXT, NOTHING, verdict.text())
}

fn refuse(status: StatusCode, reason: &str) -> Answer {
    respond(status, TEXT, NOTHING, format!("{reason}\n"))
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    policy: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let headers: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
