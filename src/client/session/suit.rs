//! A server is made to suit its client before it is linked, and is asked what the client has prepared before it goes home.

use std::task::Poll;
use std::time::{Duration, Instant};

use super::{End, Flow, Session, State, Turn};
use crate::config::PoolMode;
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::pool::lease::Lease;
use crate::server::align::Listed;
use crate::server::conn::{Outcome, ServerLost};
use crate::server::params;

/// How long a server may take to tell which statements were prepared.
pub const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

impl Session {
    /// A server is there: its parameters are brought into line, then it gets what the client said.
    pub(super) fn attach(
        &mut self,
        turn: &mut Turn<'_, '_>,
        mut lease: Lease,
        input: &[u8],
    ) -> Result<Flow, End> {
        self.shard.count(|stats| stats.server_assignment_count += 1);
        self.follow_settings();
        lease.card.request_time.set(turn.now);
        self.card.last_reply.set(turn.now);
        if !self.suits(&mut lease) {
            self.keep(input, 0);
            self.begin_aligning(lease);
            return Ok(Flow::Again);
        }
        self.link_with(lease);
        self.forward(turn, input)?;
        Ok(Flow::Again)
    }

    /// `max_prepared_statements` may have changed. Whoever has names that servers do not know keeps having them translated.
    fn follow_settings(&mut self) {
        let link_rules = self.shard.link_rules();
        let max = link_rules.max_prepared;
        let pooled = link_rules.pool_mode != PoolMode::Session;
        self.rules.max_prepared = max;
        self.rules.rewrite = pooled && max > 0 || !self.statements.names.is_empty();
    }

    /// True if the server can be used as it is.
    fn suits(&self, lease: &mut Lease) -> bool {
        let link = &mut lease.link;
        if !link.sql.agrees(&self.statements.sql) {
            let by_session = self.shard.link_rules().pool_mode == PoolMode::Session;
            if !by_session || self.statements.sql.is_some() {
                return false;
            }
            link.sql.clear(); // whatever was left there is the reset query's business
        }
        let tracked = &self.around.space.tracked;
        params::agree(&self.params, &link.params, link.reported)
            || params::alignment(tracked, &self.params, &link.params, link.reported).is_none()
    }

    fn begin_aligning(&mut self, mut lease: Lease) {
        lease.card.linked.set(Some(self.card.id));
        let space = self.around.space.clone();
        let (params, sql) = (self.params.clone(), self.statements.sql.clone());
        self.enter(State::Aligning(Box::pin(async move {
            let outcome = lease.suit(&params, &sql, &space).await;
            (lease, outcome)
        })));
    }

    pub(super) fn align(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        let State::Aligning(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((mut lease, outcome)) = work.as_mut().poll(turn.cx) else {
            // It may take as long as a lock is held: the client's end has to be noticed.
            return self.read_ahead(turn, read);
        };
        match outcome {
            Ok(Outcome::Ok) => {}
            Ok(Outcome::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("varcache_apply failed: {message}");
                self.enter(State::Idle);
                lease.give_back(turn.now);
                return Err(End::told(
                    ClientError::new("invalid server parameter").as_kind(ErrorKind::Configuration),
                ));
            }
            Err(lost) => {
                self.enter(State::Idle);
                lease.close(lost.reason());
                return Err(End::told(lost.client_error()));
            }
        }
        let space = &self.around.space;
        let (client, server) = params::aligned(
            &space.tracked,
            &self.params,
            &lease.link.params,
            lease.link.reported,
        );
        lease.link.params = space.interner.borrow_mut().intern(server);
        lease.update_card();
        let client = space.interner.borrow_mut().intern(client);
        self.set_params(client);
        self.link_with(lease);
        let input = std::mem::take(&mut self.held);
        self.forward(turn, &input)?;
        Ok(Flow::Again)
    }

    #[inline]
    pub(super) fn send_home(&self, lease: Lease, now: Instant) {
        if self.shard.link_rules().cleans_always {
            self.send_to_clean(lease, now)
        } else {
            lease.give_back(now)
        }
    }

    fn send_to_clean(&self, lease: Lease, now: Instant) {
        match &self.shard.settings().server_reset_query {
            Some(query) => lease.clean(vec![query.as_bytes().to_vec()]),
            None => lease.give_back(now),
        }
    }

    /// The client has prepared or dropped statements by SQL: which it has now, only the server can tell.
    pub(super) fn begin_listing(&mut self, mut lease: Lease) {
        let space = self.around.space.clone();
        let before = self.statements.sql.clone();
        self.enter(State::Listing(Box::pin(async move {
            let work = lease.list_statements(&before, &space);
            let listed = tokio::time::timeout(LISTING_TIMEOUT, work).await;
            (lease, listed.unwrap_or(Err(ServerLost::Unclear)))
        })));
    }

    pub(super) fn list(&mut self, turn: &mut Turn<'_, '_>) -> Result<Flow, End> {
        self.flush(turn.cx)?;
        let State::Listing(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((lease, listed)) = work.as_mut().poll(turn.cx) else {
            return Ok(Flow::Wait);
        };
        self.enter(State::Idle);
        self.unlink();
        let (reason, error) = match listed {
            Ok(Listed::Ok(names)) => {
                self.statements.sql = names;
                self.send_home(lease, turn.now);
                return Ok(Flow::Again);
            }
            Ok(Listed::TooMany(many)) => {
                let error = ClientError::with(many.to_string());
                ("too many statements", error.as_kind(ErrorKind::NotAllowed))
            }
            Ok(Listed::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("could not list prepared statements: {message}");
                let lost = ServerLost::Unclear;
                (lost.reason(), lost.client_error())
            }
            Err(lost) => (lost.reason(), lost.client_error()),
        };
        lease.close(reason);
        Err(End::told(error))
    }
}
