//! Making a server suit its next client: tracked parameters and statements prepared by SQL; and asking a server what a client has
//! prepared.
//!
//! What has to be done is decided in [`super::params`] and [`super::sql`]; here it is done. The common case, in which nothing
//! differs, never comes here.

use std::sync::Arc;

use hashbrown::HashSet;

use super::conn::{Outcome, ParamSpace, Server, ServerLost};
use super::owed::{Kind, Origin};
use super::params::{self, ParamSet};
use super::sql::{NamedText, Plan, SqlList, SqlNames, SqlSet, TooMany, list_query};
use crate::wire::build;
use crate::wire::tag::{from_client, from_server as tag};

/// Statements that are prepared before the answers are read: neither side's buffers can be full of unread words.
const PREPARED_AT_ONCE: usize = 64;
/// Statements that are dropped before the answers, of five bytes each, are read.
const DROPPED_AT_ONCE: usize = 1024;

/// What became of a list of statements.
#[derive(Debug)]
pub enum Listed {
    /// The client expects these from now on.
    Ok(SqlNames),
    /// The query failed with this message.
    Failed(Vec<u8>),
    /// There are too many.
    TooMany(TooMany),
}

impl Server {
    /// Gives the server a client's statements and parameters. The connection must be settled. Afterwards only the client's own
    /// parameter set may still differ; see [`params::aligned`].
    pub async fn suit(
        &mut self,
        params: &ParamSet,
        sql: &SqlNames,
        space: &ParamSpace,
    ) -> Result<Outcome, ServerLost> {
        if !self.link.sql.agrees(sql) {
            self.suit_statements(sql, space).await?;
        }
        self.suit_params(params, space).await
    }

    async fn suit_params(
        &mut self,
        params: &ParamSet,
        space: &ParamSpace,
    ) -> Result<Outcome, ServerLost> {
        let link = &self.link;
        match params::alignment(&space.tracked, params, &link.params, link.reported) {
            Some(sql) => self.command(&sql, space).await,
            None => Ok(Outcome::Ok),
        }
    }

    async fn suit_statements(
        &mut self,
        sql: &SqlNames,
        space: &ParamSpace,
    ) -> Result<(), ServerLost> {
        if !self.link.sql.is_known() {
            match self.list_statements(sql, space).await? {
                Listed::Ok(_) => {}
                Listed::Failed(_) | Listed::TooMany(_) => return Err(ServerLost::Unclear),
            }
        }
        let Plan { drop, prepare } = self.link.sql.plan(sql);
        let has = self.link.sql.of_client().cloned();
        if let Some(has) = has.filter(|has| !has.is_ascii()) {
            self.read_as(&has, space).await?;
        }
        self.drop_statements(&drop, space).await?;
        if let Some(wants) = sql.as_ref().filter(|_| !prepare.is_empty()) {
            self.read_as(wants, space).await?;
        }
        let mut failed = Vec::new();
        for some in prepare.chunks(PREPARED_AT_ONCE) {
            let faults = self.prepare_statements(some, space).await?;
            let of_names = some.iter().zip(faults);
            failed.extend(of_names.filter_map(|((name, _), fault)| Some((name.clone(), fault?))));
        }
        self.link.sql.carried_out(sql, failed);
        Ok(())
    }

    /// Names and texts mean now what they meant when they were listed.
    async fn read_as(&mut self, set: &Arc<SqlSet>, space: &ParamSpace) -> Result<(), ServerLost> {
        match self.suit_params(&set.params, space).await? {
            Outcome::Ok => Ok(()),
            Outcome::Failed(_) => Err(ServerLost::Unclear),
        }
    }

    /// By Close, which is never an error.
    async fn drop_statements(
        &mut self,
        names: &[Box<[u8]>],
        space: &ParamSpace,
    ) -> Result<(), ServerLost> {
        for names in names.chunks(DROPPED_AT_ONCE) {
            let mut out = Vec::new();
            for name in names {
                build::close_statement(&mut out, name);
                self.link.sent(Kind::Close, Origin::Hidden, None);
            }
            build::bare(&mut out, from_client::SYNC);
            self.link.sent(Kind::Sync, Origin::Hidden, None);
            self.converse(&out, space, |_, _| {}).await?;
        }
        Ok(())
    }

    /// Prepares each by itself; what went wrong with each, as an ErrorResponse's body. By the extended protocol, which takes one statement only:
    /// whatever the text is, nothing behind it is executed.
    async fn prepare_statements(
        &mut self,
        texts: &[NamedText],
        space: &ParamSpace,
    ) -> Result<Vec<Option<Box<[u8]>>>, ServerLost> {
        let mut out = Vec::new();
        for (_, text) in texts {
            build::unnamed_round(&mut out, text);
            for kind in [Kind::Parse, Kind::Bind, Kind::Execute, Kind::Sync] {
                self.link.sent(kind, Origin::Hidden, None);
            }
        }
        let (mut all, mut fault) = (Vec::new(), None);
        self.converse(&out, space, |tag, body| match tag {
            tag::ERROR_RESPONSE => fault = Some(body.into()),
            tag::READY_FOR_QUERY => all.push(fault.take()),
            _ => {}
        })
        .await?;
        Ok(all)
    }

    /// Asks the server for the statements prepared on it; `client` is what the client expected so far.
    pub async fn list_statements(
        &mut self,
        client: &SqlNames,
        space: &ParamSpace,
    ) -> Result<Listed, ServerLost> {
        let index = space.tracked.index(b"standard_conforming_strings");
        let strings = index.and_then(|index| self.link.params.get(index));
        let backslashes = strings == Some(b"off");
        let mut list = SqlList::new(ParamSet::clone(&self.link.params));
        let mut ours = HashSet::new();
        let query = list_query();
        let outcome = self
            .ask(query.as_bytes(), space, |row| {
                ours.extend(list.row(row, backslashes))
            })
            .await?;
        if let Outcome::Failed(message) = outcome {
            return Ok(Listed::Failed(message));
        }
        self.link.prepared.keep_only(&ours);
        Ok(match self.link.sql.learn(list, client) {
            Ok(names) => Listed::Ok(names),
            Err(too_many) => Listed::TooMany(too_many),
        })
    }
}
