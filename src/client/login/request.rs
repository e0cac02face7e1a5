//! What a StartupMessage asks for: pure, from names and values to a [`Request`], or to the words with which it is refused.

use std::fmt;

use crate::server::params::{ParamSet, Tracked};
use crate::wire::options::{self, OptionsError};
use crate::wire::startup::Startup;

/// Whether a client wants to replicate, and what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary client.
    #[default]
    None,
    /// `replication=database`
    Logical,
    /// `replication=true`
    Physical,
}

impl Replication {
    /// `none`, `logical` or `physical`, as SHOW has it.
    pub fn word(self) -> &'static str {
        match self {
            Replication::None => "none",
            Replication::Logical => "logical",
            Replication::Physical => "physical",
        }
    }

    /// From the parameter's value; anything that is no true word means an ordinary client.
    fn parse(value: Option<&[u8]>) -> Replication {
        match value {
            Some(b"database") => Replication::Logical,
            Some(word) if is_true(word) => Replication::Physical,
            _ => Replication::None,
        }
    }
}

/// As the log shows it.
impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Replication::None => "no",
            Replication::Logical => "database",
            Replication::Physical => "yes",
        })
    }
}

/// PostgreSQL's words for true, and their beginnings.
fn is_true(word: &[u8]) -> bool {
    let begins = |full: &[u8]| {
        let head = full.get(..word.len());
        !word.is_empty() && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    begins(b"true") || begins(b"yes") || word.eq_ignore_ascii_case(b"on") || word == b"1"
}

/// How start-up parameters are to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The parameters that follow a client from server to server.
    pub tracked: &'a Tracked,
    /// `ignore_startup_parameters`
    pub ignored: &'a [String],
    /// What `application_name_add_host` appends.
    pub address: Option<&'a str>,
}

/// What a client asks for. Names are bytes: nobody has said which encoding they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Never empty.
    pub user: Vec<u8>,
    /// The user's name, if none was given.
    pub database: Vec<u8>,
    /// Whether it replicates.
    pub replication: Replication,
    /// The tracked parameters as sent, unchecked.
    pub params: ParamSet,
    /// `options` of a replicating client, which goes to its server as it is.
    pub startup_options: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a StartupMessage is refused. `Display` is what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// `user` is missing or empty.
    NoUser,
    /// A parameter that is neither tracked nor ignored.
    Parameter(Vec<u8>),
    /// `options` with anything but settings.
    Options(OptionsError),
    /// A setting in `options` that is neither tracked nor ignored.
    Option(Vec<u8>),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::NoUser => f.write_str("no username supplied"),
            RequestError::Parameter(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "unsupported startup parameter: {name}")
            }
            RequestError::Options(error) => error.fmt(f),
            RequestError::Option(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "unsupported startup parameter in options: {name}")
            }
        }
    }
}

impl std::error::Error for RequestError {}

/// Reads a StartupMessage's parameters.
///
/// # Errors
/// The first parameter that cannot be taken; then a missing user.
pub fn read(startup: &Startup, rules: Rules<'_>) -> Result<Request, RequestError> {
    let mut request = Request {
        user: Vec::new(),
        database: Vec::new(),
        replication: Replication::parse(startup.get(b"replication")),
        params: ParamSet::default(),
        startup_options: Vec::new(),
    };
    for (name, value) in &startup.parameters {
        take(&mut request, name, value, rules)?;
    }
    if request.user.is_empty() {
        return Err(RequestError::NoUser);
    }
    if request.database.is_empty() {
        request.database = request.user.clone();
    }
    if let Some(address) = rules.address {
        add_address(&mut request.params, rules.tracked, address);
    }
    Ok(request)
}

fn take(
    request: &mut Request,
    name: &[u8],
    value: &[u8],
    rules: Rules<'_>,
) -> Result<(), RequestError> {
    match name {
        b"user" => request.user = value.to_vec(),
        b"database" => request.database = value.to_vec(),
        b"replication" => {}
        b"options" if request.replication != Replication::None => {
            request.startup_options = vec![(name.to_vec(), value.to_vec())];
        }
        b"options" => take_options(request, value, rules)?,
        _ if !take_setting(request, name, value, rules) => {
            return Err(RequestError::Parameter(name.to_vec()));
        }
        _ => {}
    }
    Ok(())
}

fn take_options(request: &mut Request, value: &[u8], rules: Rules<'_>) -> Result<(), RequestError> {
    let settings = options::parse(value).map_err(RequestError::Options)?;
    for (name, value) in settings {
        let taken = take_setting(request, &name, &value, rules);
        if !taken && !is_ignored(b"options", rules) {
            return Err(RequestError::Option(name));
        }
    }
    Ok(())
}

/// Keeps a setting that is tracked, swallows one that is ignored (even a tracked one); false for any other.
fn take_setting(request: &mut Request, name: &[u8], value: &[u8], rules: Rules<'_>) -> bool {
    if is_ignored(name, rules) {
        return true;
    }
    match rules.tracked.index(name) {
        Some(index) => {
            request.params.set(index, Some(value));
            true
        }
        None => false,
    }
}

fn is_ignored(name: &[u8], rules: Rules<'_>) -> bool {
    rules.ignored.iter().any(|known| known.as_bytes() == name)
}

/// What an application without a name is called when its address is appended.
const NAMELESS: &[u8] = b"app";

fn add_address(params: &mut ParamSet, tracked: &Tracked, address: &str) {
    let Some(index) = tracked.index(b"application_name") else {
        return;
    };
    let name = params.get(index).unwrap_or(NAMELESS);
    let with_address = [name, b" - ", address.as_bytes()].concat();
    params.set(index, Some(&with_address));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USER: (&str, &str) = ("user", "u");

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        let pair = |(name, value): &(&str, &str)| (name.as_bytes().into(), value.as_bytes().into());
        Startup {
            parameters: parameters.iter().map(pair).collect(),
            ..Startup::default()
        }
    }

    fn ask(
        parameters: &[(&str, &str)],
        ignored: &[&str],
        address: Option<&str>,
    ) -> Result<Request, String> {
        let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
        let rules = Rules {
            tracked: &Tracked::new(&[]),
            ignored: &ignored,
            address,
        };
        read(&startup(parameters), rules).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_param(
        parameters: &[(&str, &str)],
        ignored: &[&str],
        name: &str,
        expected: Option<&str>,
    ) {
        let request = ask(&[&[USER], parameters].concat(), ignored, None).unwrap();
        let index = Tracked::new(&[]).index(name.as_bytes()).unwrap();
        let value = request.params.get(index);
        assert_eq!(value, expected.map(str::as_bytes), "{parameters:?}");
    }

    #[track_caller]
    fn check_refused(parameters: &[(&str, &str)], ignored: &[&str], expected: &str) {
        let got = ask(&[&[USER], parameters].concat(), ignored, None);
        assert_eq!(got, Err(expected.to_owned()), "{parameters:?}");
    }

    #[test]
    fn user_and_database() {
        let names = |parameters: &[(&str, &str)]| {
            ask(parameters, &[], None).map(|request| (request.user, request.database))
        };
        assert_eq!(names(&[USER]), Ok((b"u".into(), b"u".into())));
        let both = [USER, ("database", "d")];
        assert_eq!(names(&both), Ok((b"u".into(), b"d".into())));
        assert_eq!(
            names(&[USER, ("database", "")]),
            Ok((b"u".into(), b"u".into()))
        );
        for nobody in [&[][..], &[("user", "")], &[("database", "d")]] {
            assert_eq!(names(nobody), Err("no username supplied".to_owned()));
        }
    }

    #[test]
    fn tracked_parameters_are_kept_as_sent() {
        check_param(&[("timezone", "x y")], &[], "TimeZone", Some("x y"));
        check_param(
            &[("client_encoding", "latin1")],
            &[],
            "client_encoding",
            Some("latin1"),
        );
        check_param(
            &[("application_name", "")],
            &[],
            "application_name",
            Some(""),
        );
        check_param(&[], &[], "application_name", None);
    }

    #[test]
    fn ignoring_wins_over_tracking_and_minds_the_case() {
        check_param(&[("TimeZone", "x")], &["TimeZone"], "TimeZone", None);
        check_param(&[("timezone", "x")], &["TimeZone"], "TimeZone", Some("x"));
        check_param(
            &[("extra_float_digits", "2")],
            &["extra_float_digits"],
            "TimeZone",
            None,
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        let text = "unsupported startup parameter: extra_float_digits";
        check_refused(
            &[("extra_float_digits", "2")],
            &["Extra_float_digits"],
            text,
        );
        let text = "unsupported startup parameter in options: a";
        check_refused(&[("options", "-c a=1")], &[], text);
        let text = "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed";
        check_refused(&[("options", "-d 5")], &["options"], text);
    }

    #[test]
    fn options() {
        let zone = [("options", "-c timezone=x -c a=1")];
        check_param(&zone, &["a"], "TimeZone", Some("x"));
        check_param(&zone, &["options"], "TimeZone", Some("x"));
        check_param(&zone, &["a", "timezone"], "TimeZone", None);
    }

    #[test]
    fn cve_2026_107349_options_with_an_empty_name_are_refused() {
        let got = ask(&[USER, ("options", "-c=")], &["options"], None);
        assert!(got.is_err_and(|text| text.starts_with("unsupported options")));
    }

    #[test]
    fn replication() {
        let kind = |value: &str| {
            let asked = ask(&[USER, ("replication", value)], &[], None);
            asked.unwrap().replication
        };
        for value in ["true", "t", "TRU", "yes", "y", "on", "1"] {
            assert_eq!(kind(value), Replication::Physical, "{value}");
        }
        for value in [
            "", "false", "o", "0", "off", "no", "2", "truely", "Database",
        ] {
            assert_eq!(kind(value), Replication::None, "{value}");
        }
        assert_eq!(kind("database"), Replication::Logical);
    }

    #[test]
    fn options_of_a_replicating_client_are_not_read() {
        let asked = [("options", "-d 5"), USER, ("replication", "1")];
        let request = ask(&asked, &[], None).unwrap();
        let raw: Vec<(Vec<u8>, Vec<u8>)> = vec![(b"options".into(), b"-d 5".into())];
        assert_eq!(request.startup_options, raw);
    }

    #[test]
    fn the_address_is_appended_to_the_application_name() {
        let index = Tracked::new(&[]).index(b"application_name").unwrap();
        for (given, expected) in [
            (&[("application_name", "psql")][..], "psql - 1.2.3.4:5"),
            (&[("options", "-c application_name=x")], "x - 1.2.3.4:5"),
            (&[], "app - 1.2.3.4:5"),
        ] {
            let request = ask(&[&[USER], given].concat(), &[], Some("1.2.3.4:5")).unwrap();
            assert_eq!(request.params.get(index), Some(expected.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn any_parameters_are_survived(pairs in prop::collection::vec(("[a-z_]{0,9}", ".{0,9}"), 0..6)) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            let _ = ask(&pairs, &["a"], Some("h:1"));
        }
    }
}
