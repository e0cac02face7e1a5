//! Where `auth` and the pools meet: a login that asks `auth_query` who a user is gets its answer from a pool like any other.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::App;
use crate::auth::User;
use crate::client::card::CardFacts;
use crate::client::login::Replication;
use crate::client::login::inquiry::{Asker, Asking, Inquirer, Inquiry};
use crate::config::{ClientLimits, Config, Database};
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::types::PoolKey;
use crate::worker::mail::{self, Mail};

impl Inquirer for App {
    fn ask(&self, inquiry: Inquiry) -> Asking<'_> {
        Box::pin(self.inquire(inquiry))
    }
}

impl App {
    async fn inquire(&self, inquiry: Inquiry) -> Result<Option<Arc<User>>, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.mail_inquiry(&inquiry, reply)?;
        // A worker that does not answer is gone: the process is ending.
        let answer = answer.await;
        let found = answer.unwrap_or_else(|_| {
            Err(ClientError::new("pooler is shutting down").as_kind(ErrorKind::PoolerShutdown))
        })?;
        let mut known = self.acquaintances.lock();
        let database = &inquiry.question.database;
        if found.is_none() {
            known.forget(database, inquiry.name.as_bytes());
        }
        Ok(found.map(|user| known.meet(database, user)))
    }

    /// Sends it to the worker that has fewest clients of the pool. The settings are those in force now, whatever the login began
    /// with.
    fn mail_inquiry(
        &self,
        inquiry: &Inquiry,
        reply: oneshot::Sender<crate::worker::inquiry::Found>,
    ) -> Result<(), ClientError> {
        let in_force = self.in_force();
        let (blueprint, question) = (&in_force.blueprint, &inquiry.question);
        let config = &blueprint.config;
        let database = config.database(&question.database);
        let database =
            database.ok_or(ClientError::new("database removed").as_kind(ErrorKind::Killed))?;
        if database.auto {
            self.note_autodb(&database);
        }
        let key = PoolKey {
            database: database.name.clone(),
            user: question.user.clone(),
        };
        let settings = config.pool_settings(&database, &key.user);
        let share = self.budget.pool(&key, &settings);
        share.offer_credentials(&blueprint.server_users.of(&database, &key.user));
        let (worker, seat) = share.seat();
        let mail = mail::Inquiry {
            settings,
            recipe: blueprint.recipe(&database),
            query: question.query.clone(),
            name: inquiry.name.clone().into_bytes(),
            client: card(&inquiry.client, &inquiry.name),
            limits: limits(config, inquiry),
            share,
            seat,
            reply,
        };
        let sent = self.mailboxes[worker].send(Mail::Inquiry(Box::new(mail)));
        sent.map_err(|_| {
            ClientError::new("pooler is shutting down").as_kind(ErrorKind::PoolerShutdown)
        })
    }
}

/// The timeouts of the client: of the user that it says it is, and the database that it wants.
fn limits(config: &Config, inquiry: &Inquiry) -> ClientLimits {
    let name = &inquiry.client.database;
    let wanted = config.database(name);
    let wanted = wanted.unwrap_or_else(|| Arc::new(Database::new(name)));
    config.client_limits(&wanted, &inquiry.name)
}

fn card(asker: &Asker, user: &str) -> CardFacts {
    CardFacts {
        id: asker.id,
        database: asker.database.clone(),
        user: user.to_owned(),
        peer: asker.peer,
        local: asker.local,
        replication: Replication::None,
        connected: asker.connected,
        connect_time: asker.connected_at,
        tls: asker.tls,
    }
}
