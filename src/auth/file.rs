//! `auth_file`: text to users.
//!
//! Lines `"user" "secret" anything`, `;` comments and empty lines; a quote inside quotes is doubled. PgBouncer stops
//! reading at the first bad line and stays with what it has; we report every bad line, and the caller is expected to
//! refuse the file, at start and at reload, rather than to run with some of its users.
//!
//! Reading the bytes, and wiping them afterwards, is the caller's.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::secret::{SECRET_BYTES_MAX, Secret};
use super::user::{USER_BYTES_MAX, User};

/// The users of one file. A later line for the same user replaces an earlier one.
#[derive(Default, Clone)]
pub struct AuthFile {
    users: HashMap<Box<[u8]>, Arc<User>>,
}

/// A line that cannot be read. Never quotes the line: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub text: &'static str,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken auth file: line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for FileProblem {}

impl AuthFile {
    /// Reads a file: the users of all good lines, and all bad lines.
    pub fn parse(bytes: &[u8]) -> (AuthFile, Vec<FileProblem>) {
        let mut file = AuthFile::default();
        let mut problems = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            match parse_line(line) {
                Ok(Some(user)) => file.insert(user),
                Ok(None) => {}
                Err(text) => problems.push(FileProblem {
                    line: index + 1,
                    text,
                }),
            }
        }
        (file, problems)
    }

    fn insert(&mut self, user: User) {
        self.users.insert(user.name().into(), Arc::new(user));
    }

    /// Takes the users of another in; they replace those of the same name.
    pub fn add(&mut self, other: AuthFile) {
        self.users.extend(other.users);
    }

    /// The user of this name.
    pub fn lookup(&self, user: impl AsRef<[u8]>) -> Option<&Arc<User>> {
        self.users.get(user.as_ref())
    }

    /// All users, in no order.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// After a reload: users whose secret has not changed stay the values they were, with all that was derived for them.
    /// Users that are not in the new file are gone; nothing of them is kept.
    pub fn keep_unchanged(&mut self, previous: &AuthFile) {
        for (name, user) in &mut self.users {
            if let Some(before) = previous.users.get(name)
                && before.secret().same_as(user.secret())
            {
                *user = before.clone();
            }
        }
    }
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthFile({} users)", self.users.len())
    }
}

/// The user on a line, if it is not empty and not a comment.
fn parse_line(line: &[u8]) -> Result<Option<User>, &'static str> {
    let line = line.trim_ascii_start();
    if line.is_empty() || line[0] == b';' {
        return Ok(None);
    }
    let (name, rest) = quoted(line)?;
    let secret = rest.trim_ascii_start();
    if secret.len() == rest.len() {
        return Err("no blank and secret after the user name");
    }
    let (secret, _ignored) = quoted(secret)?;
    check(&name, &secret)?;
    Ok(Some(User::new(&name, Secret::parse(&secret))))
}

fn check(name: &[u8], secret: &[u8]) -> Result<(), &'static str> {
    match () {
        _ if name.is_empty() => Err("empty user name"),
        _ if name.len() > USER_BYTES_MAX => Err("user name longer than 127 bytes"),
        _ if secret.len() > SECRET_BYTES_MAX => Err("secret longer than 65535 bytes"),
        _ if name.contains(&0) || secret.contains(&0) => Err("zero byte"),
        _ => Ok(()),
    }
}

/// The content of the quotes that `text` begins with, and what follows them.
fn quoted(text: &[u8]) -> Result<(Zeroizing<Vec<u8>>, &[u8]), &'static str> {
    let mut rest = text
        .strip_prefix(b"\"")
        .ok_or("a double quote is missing")?;
    // Room for all of it, so that growing leaves no copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let end = rest
            .iter()
            .position(|byte| *byte == b'"')
            .ok_or("quotes are not closed on the same line")?;
        content.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"\"") {
            None => return Ok((content, rest)),
            Some(after) => {
                content.push(b'"');
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(text: &str) -> AuthFile {
        let (file, problems) = AuthFile::parse(text.as_bytes());
        assert_eq!(problems, []);
        file
    }

    fn plain(file: &AuthFile, user: &str) -> Option<Vec<u8>> {
        match file.lookup(user)?.secret() {
            Secret::Plain(password) => Some(password.to_vec()),
            _ => None,
        }
    }

    fn problems(text: &str) -> Vec<(usize, &'static str)> {
        let (_, problems) = AuthFile::parse(text.as_bytes());
        problems
            .into_iter()
            .map(|problem| (problem.line, problem.text))
            .collect()
    }

    #[test]
    fn users_comments_and_empty_lines() {
        let file = good(
            "; \"no\" \"body\"\n\n\"ann\" \"pencil\" \"ignored\n  \t\"bob\"\t\"x\"\r\n  ; more\n\"eve\" \"y\"",
        );
        assert_eq!(file.len(), 3);
        assert_eq!(plain(&file, "ann").unwrap(), b"pencil");
        assert_eq!(plain(&file, "bob").unwrap(), b"x");
        assert_eq!(plain(&file, "eve").unwrap(), b"y");
        assert!(file.lookup("no").is_none());
        assert!(good("").is_empty());
    }

    #[test]
    fn quotes_are_doubled_inside_quotes() {
        let file = good(r#""a""n" """""" ""#);
        assert_eq!(plain(&file, "a\"n").unwrap(), b"\"\"");
    }

    #[test]
    fn the_last_line_of_a_user_counts() {
        assert_eq!(
            plain(&good("\"a\" \"1\"\n\"a\" \"2\"\n"), "a").unwrap(),
            b"2"
        );
    }

    #[test]
    fn an_empty_secret_is_none() {
        assert!(good("\"a\" \"\"").lookup("a").unwrap().secret().is_none());
    }

    #[test]
    fn names_need_not_be_utf_8() {
        let (file, problems) = AuthFile::parse(b"\"\xe4\" \"x\"");
        assert!(problems.is_empty() && file.lookup(b"\xe4").is_some());
    }

    #[test]
    fn every_bad_line_is_reported_and_the_good_ones_read() {
        let text = "\"a\" \"1\"\n# no\n\"b\"\n\"c\" x\n\"d\" \"open\n\"e\"\"1\"\n\"\" \"1\"\n\"z\" \"2\"\n";
        let (file, _) = AuthFile::parse(text.as_bytes());
        assert!(file.lookup("a").is_some() && file.lookup("z").is_some() && file.len() == 2);
        assert_eq!(
            problems(text),
            [
                (2, "a double quote is missing"),
                (3, "no blank and secret after the user name"),
                (4, "a double quote is missing"),
                (5, "quotes are not closed on the same line"),
                (6, "no blank and secret after the user name"),
                (7, "empty user name"),
            ]
        );
    }

    #[test]
    fn lengths_are_limited() {
        let line = |name: usize, secret: usize| {
            format!("\"{}\" \"{}\"", "u".repeat(name), "s".repeat(secret))
        };
        assert_eq!(problems(&line(127, 65_535)), []);
        assert_eq!(
            problems(&line(128, 1)),
            [(1, "user name longer than 127 bytes")]
        );
        assert_eq!(
            problems(&line(1, 65_536)),
            [(1, "secret longer than 65535 bytes")]
        );
        assert_eq!(problems("\"a\" \"x\0y\""), [(1, "zero byte")]);
    }

    #[test]
    fn a_problem_says_where_but_not_what() {
        let (_, problems) = AuthFile::parse(b"\n\"ann\" \"hunter2");
        assert_eq!(
            problems[0].to_string(),
            "broken auth file: line 2: quotes are not closed on the same line"
        );
    }

    #[test]
    fn a_removed_user_is_gone_and_an_unchanged_one_keeps_its_verifier() {
        let before = good("\"ann\" \"1\"\n\"bob\" \"2\"\n\"eve\" \"3\"");
        let verifier = before.lookup("ann").unwrap().verifier(1);
        let mut after = good("\"ann\" \"1\"\n\"bob\" \"changed\"");
        after.keep_unchanged(&before);
        assert_eq!(after.lookup("ann").unwrap().verifier(9), verifier);
        assert_eq!(plain(&after, "bob").unwrap(), b"changed");
        assert!(after.lookup("eve").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            AuthFile::parse(&bytes);
        }

        #[test]
        fn what_is_quoted_is_read_back(name in "[^\0\n]{1,30}", secret in "[^\0\n]{1,30}") {
            let double = |text: &str| text.replace('"', "\"\"");
            let text = format!("\"{}\" \"{}\" rest", double(&name), double(&secret));
            prop_assert_eq!(plain(&good(&text), &name).unwrap(), secret.as_bytes());
        }
    }
}
