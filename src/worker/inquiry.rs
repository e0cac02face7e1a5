//! `auth_query`: a login asks a pool of this worker who a user is.
//!
//! The client who logs in is in the roster meanwhile, so that it is seen, timed out and disconnected like any other that uses the
//! pool. Nothing that it said reaches the server but its name: the server's parameters are those of the pool.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Worker;
use super::client::Entry;
use super::mail::Inquiry;
use crate::auth::User;
use crate::auth::inquiry::{Answer, Fault};
use crate::client::card::{ClientCard, ClientState, Order};
use crate::config::{PoolMode, PoolSettings};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::pool::lease::Lease;
use crate::pool::shard::Shard;
use crate::pool::ticket::{Grant, Ticket};
use crate::server::conn::{InquiryError, Outcome, ParamSpace};
use crate::server::params::{self, ParamSet};

/// How long an `auth_query` may go on that nobody waits for any more: clients that come and go shall not cost the pool its
/// servers, and those that take long shall not hold them.
pub const FORSAKEN_MAX: Duration = Duration::from_secs(5);

/// What the client is told if it is the configuration, or the server, that is wrong.
fn config_error() -> ClientError {
    ClientError::new("bouncer config error").as_kind(ErrorKind::Configuration)
}

/// What the client is told if the server is lost.
fn server_crashed() -> ClientError {
    ClientError::new("server conn crashed?").as_kind(ErrorKind::ServerUnavailable)
}

/// Who was found; or what the client is told instead.
pub type Found = Result<Option<User>, ClientError>;

impl Worker {
    /// A login asks. Whatever becomes of it, it is answered, unless it has stopped listening.
    pub(super) fn inquire(self: &Rc<Self>, inquiry: Inquiry) {
        let shard = self.shard(&inquiry.share, &inquiry.settings, &inquiry.recipe);
        let params = self
            .sessions
            .space
            .interner
            .borrow_mut()
            .intern(ParamSet::default());
        let card = self.card(inquiry.client, inquiry.limits, params);
        let entry = Entry::new(self, &card, &shard, inquiry.seat, None);
        let asking = Asking {
            card,
            shard,
            query: inquiry.query,
            name: inquiry.name,
        };
        let (mut reply, shutting_down) = (inquiry.reply, self.sessions.shutting_down.get());
        (self.around.spawn)(Box::pin(async move {
            let found = asking.run(&mut reply, shutting_down).await;
            // First: as soon as it is answered, the client may be in the roster of a worker as a session.
            drop(entry);
            if let Some(found) = found {
                let _ = reply.send(found);
            }
        }));
    }
}

/// One `auth_query`.
struct Asking {
    card: Rc<ClientCard>,
    shard: Rc<Shard>,
    query: String,
    name: Vec<u8>,
}

/// How a query that was begun has ended.
enum End {
    /// The server is done.
    Done(Result<(), Failure>),
    /// The client is to be disconnected.
    Ordered(ClientError),
    /// Nobody has waited for it for as long as [`FORSAKEN_MAX`].
    Forsaken,
}

/// Why a server has not answered.
enum Failure {
    /// Its parameters are not those of the pool, and could not be changed.
    Misaligned(String),
    Inquiry(InquiryError),
}

impl Asking {
    /// `None` if nobody waits for the answer any more.
    async fn run(&self, reply: &mut oneshot::Sender<Found>, shutting_down: bool) -> Option<Found> {
        let place = match Place::take(&self.shard, &self.card, shutting_down) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let granted = tokio::select! {
            biased;
            () = reply.closed() => return None,
            error = self.ordered() => Err(error),
            granted = place.granted() => granted,
        };
        drop(place);
        match granted {
            Ok(lease) => self.ask(lease, reply).await,
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits until the client is to be disconnected.
    async fn ordered(&self) -> ClientError {
        std::future::poll_fn(|cx| {
            self.card.watch(cx.waker());
            match self.card.order() {
                Some(Order::Disconnect(error)) => std::task::Poll::Ready(error),
                // A client that has not logged in can't be told anything but the end.
                Some(Order::NotifyWaiting) | None => std::task::Poll::Pending,
            }
        })
        .await
    }

    async fn ask(&self, mut lease: Lease, reply: &mut oneshot::Sender<Found>) -> Option<Found> {
        self.begin(&lease);
        let mut answer = Answer::default();
        let end = tokio::select! {
            biased;
            done = self.exchange(&mut lease, &mut answer) => End::Done(done),
            error = self.ordered() => End::Ordered(error),
            () = forsaken(reply) => End::Forsaken,
        };
        lease.card.running.set(false);
        self.shard
            .count(|stats| stats.bytes_sent += answer.bytes() as u64);
        match end {
            End::Done(Ok(())) => Some(self.answered(lease, answer)),
            End::Done(Err(failure)) => Some(Err(failed(lease, failure))),
            End::Ordered(error) => {
                lease.close(&error.to_string());
                Some(Err(error))
            }
            End::Forsaken => {
                lease.close("client disconnected with query in progress");
                None
            }
        }
    }

    fn begin(&self, lease: &Lease) {
        let now = Instant::now();
        let waited = self.card.end_waiting(now).as_micros() as u64;
        self.shard.gauges().waited(waited, true);
        self.card.state.set(ClientState::Inquiring);
        self.card.query_start.set(Some(now));
        lease.card.request_time.set(now);
        lease.card.linked.set(Some(self.card.id));
        lease.card.running.set(true);
        // As in PgBouncer neither a query nor a transaction is counted: no client has asked for one.
        self.shard.count(|stats| {
            stats.server_assignment_count += 1;
            stats.wait_time += waited;
        });
    }

    async fn exchange(&self, lease: &mut Lease, answer: &mut Answer) -> Result<(), Failure> {
        let space = self.shard.space().clone();
        align(lease, &self.shard, &space).await?;
        let asked = lease.inquire(self.query.as_bytes(), &self.name, answer, &space);
        asked.await.map_err(Failure::Inquiry)
    }

    fn answered(&self, lease: Lease, answer: Answer) -> Found {
        if !lease.is_free() {
            tracing::error!("error in auth_query: it leaves its server in a transaction");
            lease.close("auth_query left the server in a transaction");
            return Err(config_error());
        }
        part(lease, &self.shard.settings());
        Ok(answer.into_user())
    }
}

/// Returns when nobody has waited for the answer for as long as [`FORSAKEN_MAX`].
async fn forsaken(reply: &mut oneshot::Sender<Found>) {
    reply.closed().await;
    tokio::time::sleep(FORSAKEN_MAX).await;
}

/// Brings the server's parameters into line with what the pool's servers begin with: another client of this pool may have changed
/// them.
async fn align(lease: &mut Lease, shard: &Shard, space: &Rc<ParamSpace>) -> Result<(), Failure> {
    let welcome = shard.share().welcome().unwrap_or_default();
    let own = space.read(&welcome.parameters).0;
    let link = &lease.link;
    let sql = params::alignment(&space.tracked, &own, &link.params, link.reported);
    let Some(sql) = sql else { return Ok(()) };
    match lease.command(&sql, space).await {
        Ok(Outcome::Ok) => {}
        Ok(Outcome::Failed(message)) => {
            let message = String::from_utf8_lossy(&message).into_owned();
            return Err(Failure::Misaligned(message));
        }
        Err(lost) => return Err(Failure::Inquiry(lost.into())),
    }
    let link = &mut lease.link;
    let (_, server) = params::aligned(&space.tracked, &own, &link.params, link.reported);
    link.params = space.interner.borrow_mut().intern(server);
    Ok(())
}

/// Verdict over a server that has answered.
fn part(lease: Lease, settings: &PoolSettings) {
    let resets = settings.pool_mode == PoolMode::Session || settings.server_reset_query_always;
    match settings.server_reset_query.as_ref().filter(|_| resets) {
        Some(query) => lease.clean(vec![query.as_bytes().to_vec()]),
        None => lease.give_back(Instant::now()),
    }
}

/// Verdict over one that has not; what the client is told.
fn failed(lease: Lease, failure: Failure) -> ClientError {
    match failure {
        Failure::Inquiry(InquiryError::Lost(lost)) => {
            lease.close(&InquiryError::Lost(lost).to_string());
            server_crashed()
        }
        Failure::Inquiry(InquiryError::Fault(fault)) => {
            match &fault {
                Fault::Error(severity, message) => {
                    tracing::error!("S: error in auth_query: {severity}: {message}");
                }
                other => tracing::error!("S: error in auth_query: {other}"),
            }
            lease.close(&fault.to_string());
            config_error()
        }
        Failure::Misaligned(message) => {
            tracing::warn!("varcache_apply failed: {message}");
            lease.close("invalid server parameter");
            config_error()
        }
    }
}

/// A place in the queue of a pool; left when dropped.
struct Place {
    shard: Rc<Shard>,
    ticket: Rc<Ticket>,
}

impl Place {
    /// # Errors
    /// There is no use in waiting.
    fn take(
        shard: &Rc<Shard>,
        card: &ClientCard,
        shutting_down: bool,
    ) -> Result<Place, ClientError> {
        let now = Instant::now();
        if let Some(error) = shard.failing(now) {
            return Err(error);
        }
        card.begin_waiting(now);
        let place = Place {
            shard: shard.clone(),
            ticket: Rc::new(Ticket::of(card.id)),
        };
        match shard.checkout(&place.ticket, now) {
            Some(lease) => place.ticket.give(Grant::Server(lease)),
            None if shutting_down => {
                return Err(
                    ClientError::new("server shutting down").as_kind(ErrorKind::PoolerShutdown)
                );
            }
            None => {}
        }
        Ok(place)
    }

    async fn granted(&self) -> Result<Lease, ClientError> {
        let granted = std::future::poll_fn(|cx| match self.ticket.take(cx.waker()) {
            Some(grant) => std::task::Poll::Ready(grant),
            None => std::task::Poll::Pending,
        });
        match granted.await {
            Grant::Server(lease) => Ok(lease),
            Grant::Refused(error) => Err(*error),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shard.leave(&self.ticket);
        if let Some(Grant::Server(lease)) = self.ticket.take(std::task::Waker::noop()) {
            lease.give_back(Instant::now());
        }
    }
}
