//! Queries of the pooler's own on servers that nobody uses: tests before use, and resets after it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Shard, Way};
use crate::pool::core::Wear;
use crate::pool::lease::Pooled;
use crate::server::conn::{Outcome, ParamSpace, ServerLost, ServerState};

/// How long testing or cleaning a server may take before it is closed instead.
pub const CLEAN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the queries are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Any answer is a sign of life.
    Test,
    /// They must succeed.
    Clean,
}

/// A server that runs queries of the pooler's own. Without a verdict (the task was dropped, or has panicked) it is closed.
struct UnderTest {
    shard: Rc<Shard>,
    /// Taken out by the verdict.
    pooled: Option<Box<Pooled>>,
}

impl Drop for UnderTest {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.shard.core.borrow_mut().forget_tested();
            self.shard.close(pooled, "test failed");
        }
    }
}

impl Shard {
    /// Tests a server, which counts as being tested already.
    pub(super) fn test(self: &Rc<Self>, pooled: Box<Pooled>) {
        let settings = self.settings();
        let query = settings.server_check_query.as_deref().unwrap_or_default();
        self.run(pooled, vec![query.as_bytes().to_vec()], Purpose::Test);
    }

    /// Runs queries on a server that was on loan before it is used again.
    pub(in crate::pool) fn clean(shard: &Rc<Shard>, pooled: Box<Pooled>, queries: Vec<Vec<u8>>) {
        // They must not be hit by a cancel request that was meant for the client.
        let free = shard.come_free(pooled, queries.clone(), Wear::Worn);
        if let Some(pooled) = free {
            shard.core.borrow_mut().lent_to_test();
            shard.run(pooled, queries, Purpose::Clean);
        }
    }

    fn run(self: &Rc<Self>, pooled: Box<Pooled>, queries: Vec<Vec<u8>>, purpose: Purpose) {
        self.show();
        pooled.server.card.linked.set(None);
        pooled.server.card.state.set(ServerState::Tested);
        let mut under_test = UnderTest {
            shard: self.clone(),
            pooled: Some(pooled),
        };
        (self.around.spawn)(Box::pin(async move {
            let Some(pooled) = under_test.pooled.as_mut() else {
                return;
            };
            let fault = run_queries(pooled, &queries, purpose, under_test.shard.space()).await;
            if let Some(pooled) = under_test.pooled.take() {
                under_test.shard.tested(pooled, fault, purpose);
            }
        }));
    }

    fn tested(self: &Rc<Self>, pooled: Box<Pooled>, fault: Option<String>, purpose: Purpose) {
        let now = Instant::now();
        if let Some(reason) = fault {
            self.core.borrow_mut().forget_tested();
            self.close(pooled, &reason);
            return self.pump(now);
        }
        pooled.server.update_card();
        let wear = match purpose {
            Purpose::Test => Wear::Unworn,
            Purpose::Clean => Wear::Cleaned,
        };
        self.come_home(pooled, now, Way::Tested(wear));
    }
}

/// Runs the queries; what is wrong with the server, if anything.
async fn run_queries(
    pooled: &mut Pooled,
    queries: &[Vec<u8>],
    purpose: Purpose,
    space: &ParamSpace,
) -> Option<String> {
    let server = &mut pooled.server;
    let work = async {
        server.absorb(space)?;
        for query in queries {
            if let Outcome::Failed(message) = server.command(query, space).await?
                && purpose == Purpose::Clean
            {
                return Ok(Some(message));
            }
        }
        Ok::<_, ServerLost>(None)
    };
    match tokio::time::timeout(CLEAN_TIMEOUT, work).await {
        Ok(Ok(None)) if pooled.server.is_free() => None,
        Ok(Ok(None)) => Some("reset query left the server in a transaction".to_owned()),
        Ok(Ok(Some(message))) => Some(format!(
            "reset query failed: {}",
            String::from_utf8_lossy(&message)
        )),
        Ok(Err(_)) => Some("test failed".to_owned()),
        Err(_) => Some("test timeout".to_owned()),
    }
}
