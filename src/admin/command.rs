//! The console's language: text in, [`Command`]s out.
//!
//! Pure. It knows words, not databases or rights: whether a command may run is decided in [`super::rights`], whether it can in
//! [`super::execute`]. What PgBouncer's console accepts means the same here. Beyond that comments, empty statements and several
//! statements in one text are accepted, and words and values need fewer quotes.

use super::error::CommandError;
use super::operator::ShutdownMode;

mod scan;

use scan::Scanner;

/// One command. A database is named exactly as written: case matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `SHOW what`
    Show(Show),
    /// `SET key = value`
    Set {
        /// The setting; case matters.
        key: String,
        /// The value without its quotes.
        value: String,
    },
    /// `SET` of a parameter that drivers set by habit: accepted, without effect.
    SetIgnored,
    /// `RELOAD`
    Reload,
    /// `PAUSE [db]`
    Pause(Option<String>),
    /// `RESUME [db]`
    Resume(Option<String>),
    /// `DISABLE db`; that there is a name is checked later, after the right to run it.
    Disable(Option<String>),
    /// `ENABLE db`, likewise.
    Enable(Option<String>),
    /// `RECONNECT [db]`
    Reconnect(Option<String>),
    /// `KILL [db]`
    Kill(Option<String>),
    /// `KILL_CLIENT id`; the id is checked later.
    KillClient(Option<String>),
    /// `WAIT_CLOSE [db]`
    WaitClose(Option<String>),
    /// `SHUTDOWN [mode]`
    Shutdown(ShutdownMode),
}

impl Command {
    /// Its first word, which is also the completion tag (that of SET with a value is longer).
    pub fn verb(&self) -> &'static str {
        match self {
            Command::Show(_) => "SHOW",
            Command::Set { .. } | Command::SetIgnored => "SET",
            Command::Reload => "RELOAD",
            Command::Pause(_) => "PAUSE",
            Command::Resume(_) => "RESUME",
            Command::Disable(_) => "DISABLE",
            Command::Enable(_) => "ENABLE",
            Command::Reconnect(_) => "RECONNECT",
            Command::Kill(_) => "KILL",
            Command::KillClient(_) => "KILL_CLIENT",
            Command::WaitClose(_) => "WAIT_CLOSE",
            Command::Shutdown(_) => "SHUTDOWN",
        }
    }

    /// Whether it may take as long as the clients of the pooler please, so that its own client may want to give it up.
    pub fn waits(&self) -> bool {
        matches!(self, Command::Pause(_) | Command::WaitClose(_))
    }

    /// The database or client that it names.
    pub fn object(&self) -> Option<&str> {
        match self {
            Command::Pause(name)
            | Command::Resume(name)
            | Command::Disable(name)
            | Command::Enable(name)
            | Command::Reconnect(name)
            | Command::Kill(name)
            | Command::KillClient(name)
            | Command::WaitClose(name) => name.as_deref(),
            _ => None,
        }
    }
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its SHOW name")]
pub enum Show {
    ActiveSockets,
    Clients,
    Config,
    /// Our own: what is counted of each pool besides the statistics.
    Counters,
    Databases,
    DnsHosts,
    DnsZones,
    /// Our own: what has gone wrong, counted.
    Errors,
    /// Our own: what a client does, and why it waits. `None` if what follows is no number.
    ExplainClient(Option<u64>),
    Help,
    /// Our own: percentiles.
    Latency,
    Lists,
    Mem,
    Peers,
    PeerPools,
    /// Our own: the version of this program, which `SHOW VERSION` does not say.
    PgweirVersion,
    Pools,
    Servers,
    Sockets,
    State,
    Stats,
    StatsAverages,
    StatsTotals,
    /// Our own: the busiest pools.
    Top,
    Totals,
    Users,
    Version,
    /// Our own: why clients wait.
    Waits,
    /// Our own: what each thread does.
    Workers,
    /// A parameter of PostgreSQL that drivers ask for: an index into [`PARAMETERS`].
    Parameter(usize),
}

/// What follows `SHOW`, in lower case; besides, there is `SHOW EXPLAIN CLIENT id`.
pub const SHOWS: [(&str, Show); 28] = [
    ("active_sockets", Show::ActiveSockets),
    ("clients", Show::Clients),
    ("config", Show::Config),
    ("counters", Show::Counters),
    ("databases", Show::Databases),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("errors", Show::Errors),
    ("help", Show::Help),
    ("latency", Show::Latency),
    ("lists", Show::Lists),
    ("mem", Show::Mem),
    ("peers", Show::Peers),
    ("peer_pools", Show::PeerPools),
    ("pgweir_version", Show::PgweirVersion),
    ("pools", Show::Pools),
    ("servers", Show::Servers),
    ("sockets", Show::Sockets),
    ("state", Show::State),
    ("stats", Show::Stats),
    ("stats_averages", Show::StatsAverages),
    ("stats_totals", Show::StatsTotals),
    ("top", Show::Top),
    ("totals", Show::Totals),
    ("users", Show::Users),
    ("version", Show::Version),
    ("waits", Show::Waits),
    ("workers", Show::Workers),
];

/// Parameters that drivers set and ask for although the console has none: name in lower case, and the value shown.
pub const PARAMETERS: [(&str, &str); 6] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
    ("extra_float_digits", "2"),
];

/// Reads a text of any number of commands, separated by `;`. No command at all is an empty list.
///
/// # Errors
/// [`CommandError::Invalid`] with the text, if any part of it is not a command: then nothing of it is to be run.
pub fn parse(text: &str) -> Result<Vec<Command>, CommandError> {
    commands(text).ok_or_else(|| CommandError::invalid(text))
}

fn commands(text: &str) -> Option<Vec<Command>> {
    let mut scanner = Scanner::new(text);
    let mut commands = Vec::new();
    loop {
        scanner.blank()?;
        if scanner.is_at_end() {
            return Some(commands);
        }
        if !scanner.takes(';') {
            commands.push(statement(&mut scanner)?);
        }
    }
}

/// One statement, up to its `;` or the end.
fn statement(scanner: &mut Scanner) -> Option<Command> {
    let verb = scanner.word()?.to_ascii_lowercase();
    scanner.blank()?;
    let command = match (verb.as_str(), argument_of(&verb, scanner)?) {
        ("set", _) => set(scanner)?,
        ("show" | "select", Some(what)) if what.eq_ignore_ascii_case("explain") => {
            Command::Show(explain(scanner)?)
        }
        (verb, argument) => with_argument(verb, argument)?,
    };
    scanner.blank()?;
    (scanner.is_at_end() || scanner.takes(';')).then_some(command)
}

fn argument_of(verb: &str, scanner: &mut Scanner) -> Option<Option<String>> {
    match verb {
        "set" => Some(None),
        _ => argument(scanner),
    }
}

/// `CLIENT id`, behind `SHOW EXPLAIN`. What is no id is told so later.
fn explain(scanner: &mut Scanner) -> Option<Show> {
    scanner.blank()?;
    let what = argument(scanner)??;
    if !what.eq_ignore_ascii_case("client") {
        return None;
    }
    scanner.blank()?;
    let id = argument(scanner)?;
    Some(Show::ExplainClient(id.and_then(|id| id.parse().ok())))
}

/// An optional word; `None` if there is something else.
fn argument(scanner: &mut Scanner) -> Option<Option<String>> {
    if scanner.is_at_end() || scanner.is_at(';') {
        return Some(None);
    }
    scanner.word().map(Some)
}

fn with_argument(verb: &str, argument: Option<String>) -> Option<Command> {
    Some(match verb {
        "show" | "select" => Command::Show(show(&argument?)?),
        "reload" => argument.is_none().then_some(Command::Reload)?,
        "pause" => Command::Pause(argument),
        "resume" => Command::Resume(argument),
        "disable" => Command::Disable(argument),
        "enable" => Command::Enable(argument),
        "reconnect" => Command::Reconnect(argument),
        "kill" => Command::Kill(argument),
        "kill_client" => Command::KillClient(argument),
        "wait_close" => Command::WaitClose(argument),
        "shutdown" => Command::Shutdown(shutdown_mode(argument.as_deref())?),
        _ => return None,
    })
}

fn show(name: &str) -> Option<Show> {
    let name = name.to_ascii_lowercase();
    let listed = SHOWS.iter().find(|(word, _)| *word == name);
    listed
        .map(|(_, show)| *show)
        .or_else(|| parameter(&name).map(Show::Parameter))
}

fn parameter(name: &str) -> Option<usize> {
    PARAMETERS
        .iter()
        .position(|(word, _)| word.eq_ignore_ascii_case(name))
}

fn shutdown_mode(argument: Option<&str>) -> Option<ShutdownMode> {
    match argument.map(str::to_ascii_lowercase).as_deref() {
        None => Some(ShutdownMode::Immediate),
        Some("wait_for_servers") => Some(ShutdownMode::WaitForServers),
        Some("wait_for_clients") => Some(ShutdownMode::WaitForClients),
        Some("drain") => Some(ShutdownMode::Drain),
        Some(_) => None,
    }
}

/// `key = value` or `key TO value`, behind the `SET`.
fn set(scanner: &mut Scanner) -> Option<Command> {
    let key = scanner.word()?;
    scanner.blank()?;
    if !scanner.takes('=') && !scanner.word()?.eq_ignore_ascii_case("to") {
        return None;
    }
    scanner.blank()?;
    let value = scanner.value()?;
    Some(match parameter(&key) {
        Some(_) => Command::SetIgnored,
        None => Command::Set { key, value },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[Command]) {
        assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
    }

    fn check_invalid(text: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("invalid command '{text}', use SHOW HELP;"),
            "{text}"
        );
    }

    fn db(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn set_to(key: &str, value: &str) -> Command {
        Command::Set {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn commands_with_and_without_a_name() {
        check("pause", &[Command::Pause(None)]);
        check(" PAUSE one ; ", &[Command::Pause(db("one"))]);
        check("Resume \"a \"\"b\"", &[Command::Resume(db("a \"b"))]);
        check("disable One", &[Command::Disable(db("One"))]);
        check("disable", &[Command::Disable(None)]);
        check("enable my-db.x", &[Command::Enable(db("my-db.x"))]);
        check("reconnect büro", &[Command::Reconnect(db("büro"))]);
        check("kill", &[Command::Kill(None)]);
        check("KILL_CLIENT 17", &[Command::KillClient(db("17"))]);
        check("wait_close\tx", &[Command::WaitClose(db("x"))]);
        check("RELOAD;", &[Command::Reload]);
    }

    #[test]
    fn shutdown_modes() {
        check("shutdown", &[Command::Shutdown(ShutdownMode::Immediate)]);
        let servers = Command::Shutdown(ShutdownMode::WaitForServers);
        check("SHUTDOWN WAIT_FOR_SERVERS", &[servers]);
        let clients = Command::Shutdown(ShutdownMode::WaitForClients);
        check("shutdown \"Wait_For_Clients\"", &[clients]);
        check_invalid("SHUTDOWN WAIT_FOR");
    }

    #[test]
    fn every_show_is_found_by_its_name_and_by_select() {
        for (name, show) in SHOWS {
            check(&format!("SHOW {name}"), &[Command::Show(show)]);
            check(
                &format!("select \"{}\";", name.to_ascii_uppercase()),
                &[Command::Show(show)],
            );
        }
        for (index, (name, _)) in PARAMETERS.iter().enumerate() {
            check(
                &format!("show {name}"),
                &[Command::Show(Show::Parameter(index))],
            );
        }
        check("SHOW TimeZone", &[Command::Show(Show::Parameter(4))]);
    }

    #[test]
    fn explaining_a_client() {
        let explain = |id| [Command::Show(Show::ExplainClient(id))];
        check("SHOW EXPLAIN CLIENT 17", &explain(Some(17)));
        check("show explain\n client \"17\" ;", &explain(Some(17)));
        check("show explain client", &explain(None));
        check("show explain client x", &explain(None));
        check("show explain client 99999999999999999999", &explain(None));
        check_invalid("show explain");
        check_invalid("show explain server 1");
        check_invalid("show explain client 1 2");
    }

    #[test]
    fn settings() {
        check("set query_timeout=1", &[set_to("query_timeout", "1")]);
        check(
            "SET query_timeout = 1.5 ;",
            &[set_to("query_timeout", "1.5")],
        );
        check("set a to -1", &[set_to("a", "-1")]);
        check("set a TO 'it''s ; so'", &[set_to("a", "it's ; so")]);
        check("set Aa = ''", &[set_to("Aa", "")]);
        check("set a = \"B\"", &[set_to("a", "B")]);
        check("set a=/x/y,z--rest", &[set_to("a", "/x/y,z")]);
        check("set DateStyle = 'ISO, MDY'", &[Command::SetIgnored]);
        check("set extra_float_digits=3", &[Command::SetIgnored]);
        for text in [
            "SET x",
            "SET timezone",
            "set x=",
            "set x = a b",
            "set x = 'a",
            "set = 1",
        ] {
            check_invalid(text);
        }
    }

    #[test]
    fn empty_texts_are_no_commands() {
        for text in [
            "",
            ";",
            " ; ;\n",
            "-- only a comment",
            "/* a /* nested */ one */ ;",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn several_commands_and_comments() {
        check(
            "-- first\nPAUSE/*all*/;show -- what\n version;;RELOAD",
            &[
                Command::Pause(None),
                Command::Show(Show::Version),
                Command::Reload,
            ],
        );
    }

    #[test]
    fn one_bad_statement_makes_the_whole_text_invalid() {
        check_invalid("PAUSE; foo");
    }

    #[test]
    fn what_is_no_command() {
        for text in [
            "show",
            "show foo",
            "show fds",
            "suspend",
            "show stats extra",
            "select 1",
            "select version()",
            "RELOAD foo",
            "=",
            "pause 'one'",
            "pause \"one",
            "/* open",
            "show version, config",
            "pause \"\"",
        ] {
            check_invalid(text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn texts_of_its_own_alphabet_are_survived(text in "(show|set|pause|kill|to|[ ;='\"/*-]|x){0,20}") {
            let _ = parse(&text);
        }

        /// Any name reaches the command as it is, when quoted.
        #[test]
        fn quoted_names_round_trip(name in "\\PC{1,20}") {
            let text = format!("PAUSE \"{}\"", name.replace('"', "\"\""));
            prop_assert_eq!(parse(&text), Ok(vec![Command::Pause(Some(name))]));
        }
    }
}
