//! A client on its worker: its entry in the roster, and the task that serves it.
//!
//! The task is a future written by hand. An `async` block would keep room for the session several times over, once for each place
//! that it moves through, and for a farewell that most clients do not need for days; here a client at rest takes the room of one
//! session (a test below holds it to that). What a session is, is in [`crate::client::session`].

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Worker;
use crate::client::admission::Presence;
use crate::client::card::ClientCard;
use crate::client::farewell::{close, farewell};
use crate::client::session::Session;
use crate::pool::budget::Seat;
use crate::pool::shard::Shard;
use crate::types::{ConnId, LocalTask};

/// The clients of a worker, and the pool of each.
pub(super) type Roster = HashMap<ConnId, (Rc<ClientCard>, Rc<Shard>)>;

/// A client's entry in the roster, from [`Entry::new`] on; takes itself out.
pub(super) struct Entry {
    worker: Rc<Worker>,
    card: Rc<ClientCard>,
    _seat: Seat,
    /// `None` for one who is still logging in, and counted there.
    _presence: Option<Presence>,
}

impl Entry {
    pub(super) fn new(
        worker: &Rc<Worker>,
        card: &Rc<ClientCard>,
        shard: &Rc<Shard>,
        seat: Seat,
        presence: Option<Presence>,
    ) -> Entry {
        shard.clients.set(shard.clients.get() + 1);
        let listed = (card.clone(), shard.clone());
        worker.roster.borrow_mut().insert(card.id, listed);
        Entry {
            worker: worker.clone(),
            card: card.clone(),
            _seat: seat,
            _presence: presence,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let listed = self.worker.roster.borrow_mut().remove(&self.card.id);
        if let Some((_, shard)) = listed {
            shard.clients.set(shard.clients.get() - 1);
        }
    }
}

/// A client that is none any more, but is still being told why.
struct Parting(Rc<Worker>);

impl Parting {
    fn begin(worker: &Rc<Worker>) -> Parting {
        worker.partings.set(worker.partings.get() + 1);
        Parting(worker.clone())
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.partings.set(self.0.partings.get() - 1);
    }
}

/// Serves a client from its greeting to its farewell.
#[allow(clippy::large_enum_variant)] // nearly all are the large one, in a box already
pub(super) enum Service {
    /// As long as it is a client.
    Serving { session: Session, entry: Entry },
    /// It is none any more; if it still listens, it is told why.
    Leaving(Option<LocalTask>),
}

impl Future for Service {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Service::Serving { session, .. } = &mut *self {
            let Poll::Ready(end) = session.poll(cx) else {
                return Poll::Pending;
            };
            if let Service::Serving { session, entry } =
                std::mem::replace(&mut *self, Service::Leaving(None))
            {
                let ending = session.end(end);
                entry.worker.take_leave(&entry.card, &ending);
                // Counted until it is over: the end of the process waits for it.
                let parting = Parting::begin(&entry.worker);
                drop(entry);
                let last_words = |stream| -> LocalTask {
                    Box::pin(async move {
                        farewell(stream, &ending.farewell).await;
                        drop(parting);
                    })
                };
                if !ending.is_over {
                    *self = Service::Leaving(ending.stream.map(last_words));
                } else if let Some(stream) = ending.stream {
                    close(stream);
                }
            }
        }
        match &mut *self {
            Service::Leaving(Some(farewell)) => farewell.as_mut().poll(cx),
            _ => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::names::Names;
    use crate::net::stream::Stream;
    use crate::pool::ticket::Ticket;

    /// A pooler has thousands of clients that do nothing: what each of them keeps is most of its memory. Whoever makes one of
    /// these larger multiplies that by all clients; rare things belong into a box, and things that many clients have in common
    /// into their [`crate::client::profile::Profile`].
    #[test]
    fn a_client_at_rest_is_small() {
        // A socket has a number more in debug builds.
        let debug = if cfg!(debug_assertions) { 8 } else { 0 };
        let at_most = [
            // Boxed: the allocator's word comes on top, and multiples of 16 are given out. The executor has about 130 bytes beside it.
            ("its task", size_of::<Service>(), 248 + debug),
            ("its session", size_of::<Session>(), 184 + debug),
            ("its stream", size_of::<Stream>(), 40 + debug),
            ("its names for statements", size_of::<Names>(), 8),
            // Two counters of `Rc` and the allocator's word come on top, and multiples of 16 are given out.
            ("its card", size_of::<ClientCard>(), 216),
            ("its ticket", size_of::<Ticket>(), 40),
            ("its presence", size_of::<Presence>(), 32),
        ];
        for (what, size, most) in at_most {
            println!("{what}: {size} bytes, at most {most}");
            assert!(size <= most, "{what}: {size} bytes instead of {most}");
        }
    }
}
