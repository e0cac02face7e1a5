//! The pooler between good clients and a server that misbehaves. Each test asks the same: does the client get a proper answer within a
//! bounded time, are the others served as before, and do the pool's counts return to zero?

mod broken;
mod inquiry;
mod login;
mod replies;

use crate::fixture::*;
use crate::proto::{Conn, msg};

/// A pooler with the scripted database `bad` and the real one `good`, with short timeouts.
struct Stage {
    pooler: Pooler,
    script: Script,
}

impl Stage {
    async fn with(script: Script, settings: &[(&str, &str)]) -> Stage {
        let entry = script.entry();
        Stage::with_entry(script, &entry, settings).await
    }

    /// As [`Stage::with`], with an entry `bad` of the test's own.
    async fn with_entry(script: Script, entry: &str, settings: &[(&str, &str)]) -> Stage {
        let mut ini = Ini::with_database(Cluster::shared(), "postgres");
        ini.database(
            "good",
            format!("{} dbname=postgres", Cluster::shared().address()),
        );
        ini.database("bad", entry);
        ini.set("query_wait_timeout", 3)
            .set("client_login_timeout", 5)
            .set("server_connect_timeout", 2)
            .set("default_pool_size", 2);
        for (key, value) in settings {
            ini.set(key, value);
        }
        Stage {
            pooler: ini.start().await,
            script,
        }
    }

    /// Tries to log in to `bad` and run a query; gives the error that ended it, which must come as an ErrorResponse.
    async fn error_at_login(&self) -> String {
        let mut client = self.pooler.raw().await;
        client
            .send(&msg::startup(&[("user", "u_trust"), ("database", "bad")]))
            .await;
        client.fatal().await
    }

    async fn client(&self) -> Conn {
        self.pooler.client("u_trust", "bad").await
    }

    /// The good database works, and the bad one holds nothing.
    async fn all_well(&self) {
        let mut good = self.pooler.client("u_trust", "good").await;
        assert_eq!(good.ok("SELECT 'well'").await.value(), "well");
        wait_until("the bad pool to be empty of users", || async {
            let Some(p) = self.pooler.pool("bad", "u_trust").await else {
                return true;
            };
            p.clients_active + p.clients_waiting + p.servers_active == 0
        })
        .await;
    }
}
