//! Which user the process runs as: the option `-u` and the setting `user`, and the refusal to be root.

use std::error::Error;
use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, User, geteuid, getgrouplist, getgroups, getresgid, getresuid, getuid, setgroups,
    setresgid, setresuid, setuid,
};

/// Why the process may not go on; each is fatal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserError {
    /// Nobody of that name.
    Unknown(String),
    /// A step of the switch was refused, normally because the process is not root.
    Os {
        /// The user to become.
        name: String,
        /// The system call.
        step: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The switch left privileges behind.
    StillPrivileged(String),
    /// The process would work as root.
    Root,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Unknown(name) => write!(f, "could not find user '{name}' to switch to"),
            UserError::Os { name, step, errno } => {
                write!(
                    f,
                    "cannot switch to user '{name}': {step}: {}",
                    errno.desc()
                )
            }
            UserError::StillPrivileged(name) => write!(
                f,
                "switching to user '{name}' did not give up all privileges"
            ),
            UserError::Root => f.write_str("pgweir should not run as root"),
        }
    }
}

impl Error for UserError {}

/// Becomes the user of that name for good, with the groups that the user database gives it (so a key file that is readable for
/// one of them stays readable at a reload). Does nothing if the process is that user already.
///
/// # Errors
/// No such user, the system refuses, or privileges are left. The process may then be something in between, and should end.
pub fn switch_user(name: &str) -> Result<(), UserError> {
    let unknown = || UserError::Unknown(name.to_owned());
    let refused = |step| {
        move |errno| UserError::Os {
            name: name.to_owned(),
            step,
            errno,
        }
    };
    let user = User::from_name(name)
        .map_err(refused("getpwnam"))?
        .ok_or_else(unknown)?;
    if is_only(user.uid) {
        return Ok(());
    }
    let c_name = CString::new(name).map_err(|_| unknown())?;
    let groups = getgrouplist(&c_name, user.gid).map_err(refused("getgrouplist"))?;
    // Groups first: afterwards we may not.
    setgroups(&groups).map_err(refused("setgroups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(refused("setgid"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(refused("setuid"))?;
    if has_become(&user, &groups) {
        Ok(())
    } else {
        Err(UserError::StillPrivileged(name.to_owned()))
    }
}

/// Whether all the user ids are `uid`, and not root's.
fn is_only(uid: Uid) -> bool {
    !uid.is_root() && getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3])
}

/// Looks at what the kernel says rather than at what was asked for, and tries the way back.
fn has_become(user: &User, groups: &[Gid]) -> bool {
    let uids = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [user.uid; 3]);
    let gids = getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [user.gid; 3]);
    let has_no_other_group = getgroups().is_ok_and(|has| {
        has.iter()
            .all(|gid| groups.contains(gid) || *gid == user.gid)
    });
    // Root itself can always go back to root: that is for `refuse_root` to say.
    let is_final = user.uid.is_root() || setuid(Uid::from_raw(0)).is_err();
    uids && gids && has_no_other_group && is_final
}

/// Refuses to work as root, after a switch that was asked for. No exception: a pooler reads bytes from the network.
///
/// # Errors
/// [`UserError::Root`].
pub fn refuse_root() -> Result<(), UserError> {
    if getuid().is_root() || geteuid().is_root() {
        Err(UserError::Root)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The switch itself cannot be undone: tests/process.rs tries it in processes of its own.

    #[test]
    fn an_unknown_user() {
        for name in ["no such user", "", "a\0b"] {
            assert!(switch_user(name).is_err(), "{name:?}");
        }
        let error = switch_user("no such user").unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find user 'no such user' to switch to"
        );
    }

    #[test]
    fn root_is_refused() {
        let expected = if getuid().is_root() {
            Err(UserError::Root)
        } else {
            Ok(())
        };
        assert_eq!(refuse_root(), expected);
        assert_eq!(UserError::Root.to_string(), "pgweir should not run as root");
    }
}
