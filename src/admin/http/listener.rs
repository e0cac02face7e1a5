//! Accepts HTTP connections, one request each, within limits.
//!
//! A connection has a few seconds in all. When there are as many as may be, the oldest that is not being answered makes room for the
//! next: whoever opens connections to keep others out loses them.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::net::listen::{AcceptError, Listener};
use crate::net::options::TcpOptions;
use crate::net::prefixed::Prefixed;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a request's headers may take to arrive.
pub const HEADERS_MAX: Duration = Duration::from_secs(5);
/// How long a connection may last.
pub const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// The most bytes that a request may have.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The most headers that a request may have.
pub const HEADERS_COUNT_MAX: usize = 64;
/// How long accepting pauses when the process has no descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// The connections there are, over all listeners.
#[derive(Debug, Default)]
pub struct Crowd {
    /// The oldest first.
    guests: RefCell<Vec<Guest>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Guest {
    number: u64,
    /// Its request is being answered.
    is_served: Rc<Cell<bool>>,
    task: AbortHandle,
}

impl Crowd {
    /// Room for one more, if need be that of somebody else. False: all are being answered.
    fn make_room(&self) -> bool {
        let mut guests = self.guests.borrow_mut();
        if guests.len() < CONNECTIONS_MAX {
            return true;
        }
        let idle = guests.iter().position(|guest| !guest.is_served.get());
        idle.map(|at| guests.remove(at).task.abort()).is_some()
    }

    fn leave(&self, number: u64) {
        let mut guests = self.guests.borrow_mut();
        guests.retain(|guest| guest.number != number);
    }
}

/// Accepts connections until the future is dropped, and has `answer` answer each one's request. On a `LocalSet`.
pub async fn accept<A, F>(listener: Listener, crowd: Rc<Crowd>, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let options = TcpOptions::default();
    loop {
        match listener.accept(&options).await {
            Ok(accepted) => {
                if let Ok(stream) = accepted.stream.attach()
                    && crowd.make_room()
                {
                    seat(&crowd, Prefixed::new(stream, Vec::new()), answer.clone());
                }
            }
            Err(AcceptError::Exhausted(error)) => {
                tracing::warn!("metrics: accept() failed: {error}");
                sleep(EXHAUSTED_PAUSE).await;
            }
            Err(AcceptError::Connection(_)) => {}
        }
    }
}

fn seat<A, F>(crowd: &Rc<Crowd>, stream: Prefixed, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let number = crowd.next.replace(crowd.next.get() + 1);
    let is_served = Rc::new(Cell::new(false));
    let (here, served) = (crowd.clone(), is_served.clone());
    let conversation = async move {
        let answered = serve(stream, served, answer);
        let _ = timeout(CONNECTION_MAX, answered).await;
        here.leave(number);
    };
    let task = tokio::task::spawn_local(conversation).abort_handle();
    crowd.guests.borrow_mut().push(Guest {
        number,
        is_served,
        task,
    });
}

async fn serve<A, F>(stream: Prefixed, is_served: Rc<Cell<bool>>, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(move |request| {
        let (answer, is_served) = (answer.clone(), is_served.clone());
        async move {
            is_served.set(true);
            let response = answer(request).await;
            // What remains is to be read by the peer, which may take its time only as long as nobody else needs the place.
            is_served.set(false);
            Ok::<_, Infallible>(response)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(REQUEST_BYTES_MAX)
        .max_headers(HEADERS_COUNT_MAX)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = conversation.await {
        tracing::debug!("metrics: {error}");
    }
}
