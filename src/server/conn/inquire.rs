//! `auth_query` on a server connection: sent as one batch of the extended protocol, answered to [`Answer`].
//!
//! The connection is used as it is: whoever borrows it sees to its parameters. What was read is wiped when dropped, since secrets
//! are in it.

use std::fmt;

use zeroize::Zeroizing;

use super::{ParamSpace, Server, ServerLost};
use crate::auth::inquiry::{ANSWER_BYTES_MAX, Answer, Fault};
use crate::server::owed::{Kind, Origin};
use crate::wire::build;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::tag::from_server as tag;

/// The largest length field in an answer.
const MESSAGE_LEN_MAX: u32 = ANSWER_BYTES_MAX as u32;
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 4096;

/// Why `auth_query` was not answered. The connection is to be closed.
#[derive(Debug)]
pub enum InquiryError {
    /// It is gone, or makes no sense.
    Lost(ServerLost),
    /// It was answered with what is no answer.
    Fault(Fault),
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InquiryError::Lost(lost) => f.write_str(lost.reason()),
            InquiryError::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for InquiryError {}

impl From<ServerLost> for InquiryError {
    fn from(lost: ServerLost) -> InquiryError {
        InquiryError::Lost(lost)
    }
}

impl From<std::io::Error> for InquiryError {
    fn from(error: std::io::Error) -> InquiryError {
        InquiryError::Lost(error.into())
    }
}

impl From<Fault> for InquiryError {
    fn from(fault: Fault) -> InquiryError {
        InquiryError::Fault(fault)
    }
}

impl Server {
    /// Asks who the user `name` is. The connection must be free. Takes as long as the server does; if the future is dropped before
    /// its end, or fails, the connection is to be closed.
    ///
    /// # Errors
    /// The connection broke, or `answer` did not like what came.
    pub async fn inquire(
        &mut self,
        query: &[u8],
        name: &[u8],
        answer: &mut Answer,
        space: &ParamSpace,
    ) -> Result<(), InquiryError> {
        let batch = self.batch(query, name);
        self.stream.write_all(&batch).await?;
        let mut held = Zeroizing::new(std::mem::take(&mut self.held));
        while !answer.is_complete() {
            let taken = self.take_answers(&held, answer, space)?;
            held.drain(..taken);
            if !answer.is_complete() {
                self.read_more(&mut held).await?;
            }
        }
        // The beginning of something else: whoever asks next whether the connection is free will hear that it is not.
        self.held.extend_from_slice(&held);
        Ok(())
    }

    fn batch(&mut self, query: &[u8], name: &[u8]) -> Vec<u8> {
        let mut batch = Vec::new();
        build::parse(&mut batch, query);
        build::bind_text(&mut batch, name);
        build::describe_portal(&mut batch);
        build::execute(&mut batch);
        build::sync(&mut batch);
        for kind in [
            Kind::Parse,
            Kind::Bind,
            Kind::Describe,
            Kind::Execute,
            Kind::Sync,
        ] {
            self.link.sent(kind, Origin::Hidden, None);
        }
        batch
    }

    /// Takes the whole messages at the front of `held`, up to the end of the answer; returns how many bytes they are.
    fn take_answers(
        &mut self,
        held: &[u8],
        answer: &mut Answer,
        space: &ParamSpace,
    ) -> Result<usize, InquiryError> {
        let mut at = 0;
        while !answer.is_complete() {
            let rest = &held[at..];
            let header = frame::header(rest, MESSAGE_LEN_MAX).map_err(|_| ServerLost::Nonsense)?;
            let Some(header) = header.filter(|header| header.total <= rest.len() as u64) else {
                break;
            };
            // It is all there, so its length is a usize.
            let total = header.total as usize;
            let body = &rest[HEADER_LEN..total];
            self.note_reply(header.tag, body, space)?;
            answer.take(header.tag, body)?;
            at += total;
        }
        Ok(at)
    }

    fn note_reply(&mut self, tag: u8, body: &[u8], space: &ParamSpace) -> Result<(), ServerLost> {
        let status = body.first().copied().unwrap_or(0);
        let owed = self.link.owed.reply(tag, status, &mut self.link.events);
        owed.map_err(|_| ServerLost::Nonsense)?;
        if tag == tag::PARAMETER_STATUS {
            self.note_parameter(body, space);
        }
        Ok(())
    }

    async fn read_more(&mut self, held: &mut Zeroizing<Vec<u8>>) -> Result<(), ServerLost> {
        let at = held.len();
        if held.capacity() < at + READ_BYTES {
            // Growing in place would leave what is there in memory.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * at + READ_BYTES));
            larger.extend_from_slice(held);
            *held = larger;
        }
        held.resize(at + READ_BYTES, 0);
        let got = self.stream.read_some(&mut held[at..]).await;
        held.truncate(at + *got.as_ref().unwrap_or(&0));
        match got? {
            0 => Err(ServerLost::Gone),
            _ => Ok(()),
        }
    }
}
