//! What a client reads after it has proved its identity: AuthenticationOk, parameters, its cancel key, ReadyForQuery.

use std::rc::Rc;

use crate::pool::budget::Welcome;
use crate::pool::shard::Shard;
use crate::server::conn::ParamSpace;
use crate::server::params::ParamSet;
use crate::types::{CancelKey, ConnId};
use crate::wire::build::{self, Severity};

/// What is known about the greeting before the pool's part of it is.
#[derive(Debug)]
pub struct Greeting {
    /// Bytes that go out before AuthenticationOk (the end of a SASL exchange).
    pub prefix: Vec<u8>,
    /// The key with which the client may cancel.
    pub key: CancelKey,
    /// `pool_mode`, told as a parameter.
    pub pool_mode: String,
    /// `max_prepared_statements`, told as a parameter.
    pub max_prepared: u32,
    /// `login_notify_message`
    pub notice: String,
    /// For a replication client: what its own server is to be started with.
    pub replication: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Greeting {
    /// The client gets a server of its own (replication).
    pub fn dedicated(&self) -> bool {
        self.replication.is_some()
    }

    /// Start-up parameters for the client's own server: what belongs to replication, and the tracked ones that the client gave,
    /// which nobody brings into line later.
    pub fn startup(&self, own: &ParamSet, space: &ParamSpace) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut startup = self.replication.clone().unwrap_or_default();
        for index in 0..space.tracked.len() {
            if let Some(value) = own.get(index) {
                startup.push((
                    space.tracked.name(index).as_bytes().to_vec(),
                    value.to_vec(),
                ));
            }
        }
        startup
    }

    /// What the client's own server has told at its login.
    pub fn take_dedicated_welcome(&mut self, shard: &Shard, client: ConnId) -> Welcome {
        shard.take_dedicated_welcome(client)
    }

    /// The whole greeting, and the client's parameters: its own where it gave them, the server's for the rest.
    pub fn compose(
        &mut self,
        welcome: &Welcome,
        own: &ParamSet,
        space: &ParamSpace,
    ) -> (Vec<u8>, Rc<ParamSet>) {
        let mut out = std::mem::take(&mut self.prefix);
        build::authentication_ok(&mut out);
        let mut params = own.clone();
        for (name, value) in &welcome.parameters {
            match space.tracked.index(name) {
                Some(index) if params.get(index).is_none() => params.set(index, Some(value)),
                Some(_) => {}
                None => build::parameter_status(&mut out, name, value),
            }
        }
        for index in 0..space.tracked.len() {
            if let Some(value) = params.get(index) {
                build::parameter_status(&mut out, space.tracked.name(index).as_bytes(), value);
            }
        }
        build::parameter_status(
            &mut out,
            b"pgbouncer.version",
            crate::COMPATIBLE_VERSION.as_bytes(),
        );
        build::parameter_status(&mut out, b"pgbouncer.pool_mode", self.pool_mode.as_bytes());
        build::parameter_status(
            &mut out,
            b"pgbouncer.max_prepared_statements",
            self.max_prepared.to_string().as_bytes(),
        );
        build::backend_key_data(&mut out, self.key.0);
        if !self.notice.is_empty() {
            build::error(&mut out, Severity::Notice, "00000", self.notice.as_bytes());
        }
        build::ready_for_query(&mut out, b'I');
        let params = space.interner.borrow_mut().intern(params);
        (out, params)
    }
}
