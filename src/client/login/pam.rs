//! Asking PAM whether a password is right, without waiting for it on a thread that others need.
//!
//! PAM calls block for as long as a module likes. They run on threads of their own, so many at once; further logins stand in line,
//! in order, until their own limit ends the waiting. A call cannot be broken off: one whose login has ended keeps its thread until
//! its module returns, so modules that hang stop PAM logins, and nothing else.
//!
//! The calls themselves are in `library`.

#[cfg(feature = "pam")]
mod library;

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

#[cfg(feature = "pam")]
use self::library::Library;
#[cfg(not(feature = "pam"))]
use self::no_library::Library;

/// The service name, which is also the name of the file in `/etc/pam.d`: PgBouncer's, so that its file serves here too.
pub const SERVICE: &str = "pgbouncer";
/// Most PAM calls at once, and so most threads for them.
pub const CALLS_MAX: usize = 8;

/// Why PAM cannot be used, or somebody is not let in. For the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PamError {
    /// This program was built without PAM.
    NotBuilt,
    /// The library is missing, or is another one than it seems.
    NoLibrary(String),
    /// This function said this.
    Refused(&'static str, String),
    /// Names and passwords with a zero byte cannot be told to PAM, empty ones must not.
    Unfit,
    /// The process is ending.
    Closing,
}

impl fmt::Display for PamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PamError::NotBuilt => f.write_str("auth_type=pam is not available: built without PAM"),
            PamError::NoLibrary(why) => write!(f, "auth_type=pam is not available: {why}"),
            PamError::Refused(function, why) => write!(f, "{function}() failed: {why}"),
            PamError::Unfit => f.write_str("user name or password is not fit for PAM"),
            PamError::Closing => f.write_str("PAM is being closed"),
        }
    }
}

impl std::error::Error for PamError {}

/// What one call is about.
struct Question {
    user: CString,
    /// Ends in its only zero. Wiped when the call is over.
    password: Zeroizing<Vec<u8>>,
    from: CString,
}

impl Question {
    fn new(user: &str, password: &[u8], from: &str) -> Result<Question, PamError> {
        if user.is_empty() || password.is_empty() || password.contains(&0) {
            return Err(PamError::Unfit);
        }
        // With room for the zero: growing would leave a copy behind.
        let mut ended = Zeroizing::new(Vec::with_capacity(password.len() + 1));
        ended.extend_from_slice(password);
        ended.push(0);
        Ok(Question {
            user: CString::new(user).map_err(|_| PamError::Unfit)?,
            password: ended,
            from: CString::new(from).map_err(|_| PamError::Unfit)?,
        })
    }
}

/// PAM, ready to be asked. One for the process: its limit holds over reloads.
#[derive(Debug)]
pub struct Pam {
    library: Arc<Library>,
    /// Places for calls, given in the order in which they were asked for.
    places: Arc<Semaphore>,
}

impl Pam {
    /// Loads the system's libpam, or takes what the one before has loaded.
    ///
    /// # Errors
    /// It is not there, or cannot be used.
    pub fn load(before: Option<&Pam>) -> Result<Pam, PamError> {
        if let Some(before) = before {
            let (library, places) = (before.library.clone(), before.places.clone());
            return Ok(Pam { library, places });
        }
        Ok(Pam {
            library: Arc::new(Library::load()?),
            places: Arc::new(Semaphore::new(CALLS_MAX)),
        })
    }

    /// Returns when PAM has accepted the password, and that the account may be used now. `from` is the client's address.
    ///
    /// Dropping the future does not end a call that has begun; it keeps its place.
    ///
    /// # Errors
    /// Anything else has happened.
    pub async fn verify(&self, user: &str, password: &[u8], from: &str) -> Result<(), PamError> {
        let question = Question::new(user, password, from)?;
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| PamError::Closing)?;
        let library = self.library.clone();
        let call = tokio::task::spawn_blocking(move || {
            let _place = place;
            library.ask(&question)
        });
        // A call that has panicked has let nobody in.
        call.await.unwrap_or(Err(PamError::Closing))
    }
}

#[cfg(not(feature = "pam"))]
mod no_library {
    use super::{PamError, Question};

    /// There is none.
    #[derive(Debug)]
    pub enum Library {}

    impl Library {
        pub fn load() -> Result<Library, PamError> {
            Err(PamError::NotBuilt)
        }

        pub fn ask(&self, _question: &Question) -> Result<(), PamError> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked() {
        let ask = |user, password: &[u8]| Question::new(user, password, "::1").map(drop);
        assert_eq!(ask("ann", b"pw"), Ok(()));
        for (user, password) in [
            ("ann", &b""[..]),
            ("", b"pw"),
            ("a\0n", b"pw"),
            ("ann", b"p\0w"),
        ] {
            assert_eq!(ask(user, password), Err(PamError::Unfit), "{user:?}");
        }
    }
}
