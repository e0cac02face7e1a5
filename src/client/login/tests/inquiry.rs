//! Logins of users whom `auth_query` finds, or does not.

use parking_lot::Mutex;

use super::super::inquiry::{Answer, Asking, Inquirer, Inquiry, Question};
use super::*;
use crate::error::ClientError;

/// Answers inquiries; remembers them.
#[derive(Default)]
pub struct Directory {
    /// By name: the name that comes back, and the secret.
    users: Vec<(&'static str, &'static str, String)>,
    /// What every client is told instead of an answer.
    refusal: Option<&'static str>,
    /// Nothing is ever answered.
    silent: bool,
    asked: Mutex<Vec<Inquiry>>,
}

impl Directory {
    fn answer(&self, name: &str) -> Answer {
        if let Some(text) = self.refusal {
            return Err(ClientError::new(text));
        }
        let found = self.users.iter().find(|(known, _, _)| *known == name);
        Ok(found.map(|(_, name, secret)| {
            let secret = crate::auth::Secret::parse(secret.as_bytes());
            Arc::new(User::new(name.as_bytes(), secret))
        }))
    }
}

impl Inquirer for Directory {
    fn ask(&self, inquiry: Inquiry) -> Asking<'_> {
        let answer = self.answer(&inquiry.name);
        self.asked.lock().push(inquiry);
        Box::pin(async move {
            if self.silent {
                std::future::pending().await
            }
            // As from another thread: not at once.
            tokio::task::yield_now().await;
            answer
        })
    }
}
