//! The command line: `pgweir [-q] [-v…] [-d] [-u USER] [-V] [-h] FILE`, `pgweir check FILE`, `pgweir healthcheck [FILE]`,
//! `pgweir userlist --from …`, and `pgweir tune --ram …`.
//!
//! Options, texts and exit codes are PgBouncer's, so that its service files and scripts work. Called by the name `pgbouncer`,
//! the program has PgBouncer's help and version too, and no other commands. A pure function from arguments to what is asked for;
//! what is then done is the business of [`crate::app`].

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser};

use crate::COMPATIBLE_VERSION;
use crate::tune::Machine;

/// The word that asks for a check instead of a run. A file of this name is reached as `./check`.
const CHECK: &str = "check";
/// The word that asks for a run with the file that a container has, or with none. A file of this name is reached as `./container`.
const CONTAINER: &str = "container";
/// The word that asks how a running process is. A file of this name is reached as `./healthcheck`.
const HEALTHCHECK: &str = "healthcheck";
/// The word that asks for an `auth_file` to be made. A file of this name is reached as `./userlist`.
const USERLIST: &str = "userlist";
/// The word that asks for settings for PostgreSQL. A file of this name is reached as `./tune`.
const TUNE: &str = "tune";
/// The name by which the program passes for PgBouncer.
const PGBOUNCER: &str = "pgbouncer";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Pool connections until told to stop.
    Run(Run),
    /// The same with the first of [`FILES`](crate::config::container::FILES) that is there, else with what the environment says.
    Container(Run),
    /// Look the configuration over and print a report.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Ask a running process how it is.
    Healthcheck(Healthcheck),
    /// Write an `auth_file` from the roles of a server.
    Userlist(Userlist),
    /// Print settings for PostgreSQL.
    Tune(Machine),
}

/// What to ask a running process, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(name = "pgweir healthcheck", disable_version_flag = true)]
pub struct Healthcheck {
    /// The configuration file that it was started with; without one, its settings are taken from the environment alone.
    #[arg(value_name = "CONFIG_FILE")]
    pub file: Option<PathBuf>,
    /// Can it serve a new client? (the default)
    #[arg(long, conflicts_with_all = ["live", "startup"])]
    pub ready: bool,
    /// Do its threads answer?
    #[arg(long, conflicts_with = "startup")]
    pub live: bool,
    /// Has it started?
    #[arg(long)]
    pub startup: bool,
    /// Ask there, whatever the configuration says: http://host:port/readyz
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "ready", "live", "startup"])]
    pub url: Option<String>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Can it serve a new client?
    Ready,
    /// Do its threads answer?
    Live,
    /// Has it started?
    Startup,
}

impl Healthcheck {
    /// What is asked.
    pub fn probe(&self) -> Probe {
        match (self.live, self.startup) {
            (true, _) => Probe::Live,
            (_, true) => Probe::Startup,
            _ => Probe::Ready,
        }
    }
}

/// Which roles to write, from where and to where.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "pgweir userlist", disable_version_flag = true)]
pub struct Userlist {
    /// How to connect, as for psql: host=… user=… or postgresql://…
    #[arg(long, value_name = "CONNECTION STRING")]
    pub from: String,
    /// The file to write (mode 0600), instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only these roles.
    #[arg(value_name = "ROLE")]
    pub roles: Vec<String>,
}

/// How to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The configuration file.
    pub file: PathBuf,
    /// `-q`: no log on stderr.
    pub quiet: bool,
    /// `-v`, how often: 1 = debug, 2 and up = everything.
    pub verbose: u8,
    /// `-d`: go to the background.
    pub daemon: bool,
    /// `-u`: the system user to become; wins over the setting.
    pub user: Option<String>,
}

/// The end of the program before it began: help, version, or a mistake on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What to print, whole lines.
    pub text: String,
    /// The exit code: 0 goes with stdout, anything else with stderr.
    pub code: u8,
}

impl Stop {
    /// Prints the text and ends the process.
    pub fn exit(&self) -> ! {
        match self.code {
            0 => print!("{}", self.text),
            _ => eprint!("{}", self.text),
        }
        std::process::exit(self.code.into())
    }

    fn mistake(program: &str, what: &str) -> Self {
        let text = format!("{program}: {what}\nTry \"{program} --help\" for more information.\n");
        Self { text, code: 1 }
    }

    fn information(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// The arguments as clap sees them. `check` is taken for a file here, so that options keep their one meaning.
#[derive(Parser)]
#[command(
    name = "pgweir",
    version,
    infer_long_args = true,
    args_override_self = true
)]
struct Arguments {
    #[arg(short = 'd', long)]
    daemon: bool,
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(short = 'u', long, value_name = "USERNAME", allow_hyphen_values = true)]
    user: Option<String>,
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,
    files: Vec<PathBuf>,
}

/// Reads the command line; `args` begins with the name of the program.
///
/// # Errors
/// What to print instead of running: help and version (exit code 0), or what is wrong (exit code 1).
pub fn parse<I>(args: I) -> Result<Cli, Stop>
where
    I: IntoIterator<Item = OsString>,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let program = Program::of(&args);
    let word = args.get(1).filter(|_| !program.is_pgbouncer);
    if let Some(command) = word.and_then(|word| own_command(word, &args[1..])) {
        return command.map(|command| Cli { command });
    }
    let parsed = Arguments::try_parse_from(&args).map_err(|error| program.stop(&args, &error))?;
    command(parsed, program.is_pgbouncer)
        .map(|command| Cli { command })
        .map_err(|what| Stop::mistake(&program.name, what))
}

/// A command that PgBouncer does not have, with options of its own.
fn own_command(word: &OsStr, args: &[OsString]) -> Option<Result<Command, Stop>> {
    let parsed = match word.to_str()? {
        HEALTHCHECK => Healthcheck::try_parse_from(args).map(Command::Healthcheck),
        USERLIST => Userlist::try_parse_from(args).map(Command::Userlist),
        TUNE => Machine::try_parse_from(args).map(Command::Tune),
        _ => return None,
    };
    Some(parsed.map_err(|error| stop_command(&error)))
}

/// clap's own words: PgBouncer has none for this.
fn stop_command(error: &clap::Error) -> Stop {
    let text = error.to_string();
    match error.use_stderr() {
        false => Stop::information(text),
        true => Stop { text, code: 1 },
    }
}

/// What the program has been called as.
struct Program {
    name: String,
    is_pgbouncer: bool,
}

impl Program {
    fn of(args: &[OsString]) -> Program {
        let called = args.first().map(Path::new);
        let name = called.unwrap_or(Path::new("pgweir"));
        Program {
            name: name.to_string_lossy().into_owned(),
            is_pgbouncer: name.file_name().is_some_and(|name| name == PGBOUNCER),
        }
    }
}

fn command(arguments: Arguments, is_pgbouncer: bool) -> Result<Command, &'static str> {
    const NO_FILE: &str = "no configuration file specified";
    const MANY_FILES: &str = "more than one configuration file specified";
    let is_check = |word: &Path| !is_pgbouncer && word == Path::new(CHECK);
    let is_container = |word: &Path| !is_pgbouncer && word == Path::new(CONTAINER);
    let run = |file: &Path| Run {
        file: file.to_owned(),
        quiet: arguments.quiet,
        verbose: arguments.verbose,
        daemon: arguments.daemon,
        user: arguments.user.clone(),
    };
    match arguments.files.as_slice() {
        [] => Err(NO_FILE),
        [word] if is_check(word) => Err(NO_FILE),
        [word, file] if is_check(word) => match (arguments.daemon, &arguments.user) {
            (false, None) => Ok(Command::Check { file: file.clone() }),
            _ => Err("check takes neither -d nor -u"),
        },
        [word] if is_container(word) => Ok(Command::Container(run(Path::new("")))),
        [file] => Ok(Command::Run(run(file))),
        _ if is_pgbouncer => Err(NO_FILE),
        _ => Err(MANY_FILES),
    }
}

/// The long options, for telling which of them an abbreviation may mean.
const LONG_OPTIONS: [&str; 6] = ["daemon", "quiet", "user", "verbose", "version", "help"];

impl Program {
    /// What clap objects to, in the words of getopt, which PgBouncer uses.
    fn stop(&self, args: &[OsString], error: &clap::Error) -> Stop {
        let argument = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => argument.as_str(),
            Some(ContextValue::Strings(arguments)) => arguments.first().map_or("", String::as_str),
            _ => "",
        };
        // clap adds the name of the value: `--user <USERNAME>`.
        let option = argument.split([' ', '=']).next().unwrap_or_default();
        let what = match error.kind() {
            ErrorKind::DisplayHelp => return Stop::information(self.help()),
            ErrorKind::DisplayVersion => return Stop::information(self.version()),
            ErrorKind::UnknownArgument => unknown(option),
            // Only the last argument can lack its value, and of the two ways to write this option one is short.
            ErrorKind::InvalidValue if !last_is_long(args) => {
                "option requires an argument -- 'u'".to_owned()
            }
            ErrorKind::InvalidValue => format!("option '{option}' requires an argument"),
            ErrorKind::TooManyValues => format!("option '{option}' doesn't allow an argument"),
            _ => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                first.strip_prefix("error: ").unwrap_or(first).to_owned()
            }
        };
        Stop::mistake(&self.name, &what)
    }

    fn version(&self) -> String {
        let own = env!("CARGO_PKG_VERSION");
        let rest = "adns: system\ntls: rustls (ring)\nsystemd: yes\n";
        match self.is_pgbouncer {
            true => format!("PgBouncer {COMPATIBLE_VERSION}\npgweir {own}\n{rest}"),
            false => {
                format!("pgweir {own} (compatible with PgBouncer {COMPATIBLE_VERSION})\n{rest}")
            }
        }
    }

    fn help(&self) -> String {
        let program = &self.name;
        let (commands, remarks) = match self.is_pgbouncer {
            true => (String::new(), "This is pgweir in the place of PgBouncer."),
            false => (
                format!(
                    "  {program} [OPTION]... container
  {program} check CONFIG_FILE
  {program} healthcheck [--ready | --live | --startup] [CONFIG_FILE]
  {program} userlist --from 'CONNECTION STRING' [--output FILE] [ROLE]...
  {program} tune --ram SIZE --cpus NUMBER [--disks KIND:NUMBER] [--connections NUMBER] [--version NUMBER]
"
                ),
                HELP_REMARKS,
            ),
        };
        format!(
            "{program} is a connection pooler for PostgreSQL.

Usage:
  {program} [OPTION]... CONFIG_FILE
{commands}
Options:
  -d, --daemon         run in background (as a daemon)
  -q, --quiet          run quietly
  -u, --user=USERNAME  assume identity of USERNAME
  -v, --verbose        increase verbosity
  -V, --version        show version, then exit
  -h, --help           show this help, then exit

{remarks}
"
        )
    }
}

const HELP_REMARKS: &str = "CONFIG_FILE is an ini file as PgBouncer's, or a TOML file if its name ends in .toml.
The name env: stands for what environment variables such as DATABASE_URL or DB_HOST say. \"container\" takes
/etc/pgweir/pgweir.toml, /etc/pgweir/pgbouncer.ini or /etc/pgbouncer/pgbouncer.ini, else env:.
\"check\" looks it over without starting. \"healthcheck\" asks the process that runs with it how it is. \"userlist\" writes
an auth_file from the roles of a server; a password for it may be in PGPASSWORD. \"tune\" prints settings for PostgreSQL
on a machine. Files of these names are reached as ./check and so on.";

/// An option that is none, or that could be several.
fn unknown(option: &str) -> String {
    let Some(name) = option.strip_prefix("--") else {
        let letter = option.strip_prefix('-').unwrap_or(option);
        return format!("invalid option -- '{letter}'");
    };
    let possible = LONG_OPTIONS.iter().filter(|long| long.starts_with(name));
    let possible: Vec<String> = possible.map(|long| format!("'--{long}'")).collect();
    match possible.len() {
        2.. => format!(
            "option '{option}' is ambiguous; possibilities: {}",
            possible.join(" ")
        ),
        _ => format!("unrecognized option '{option}'"),
    }
}

fn last_is_long(args: &[OsString]) -> bool {
    let last = args.last().map(|last| last.to_string_lossy());
    last.is_some_and(|last| last.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_words(words: &str) -> Result<Command, Stop> {
        let args = std::iter::once("pgweir").chain(words.split_whitespace());
        parse(args.map(OsString::from)).map(|cli| cli.command)
    }

    fn run(file: &str) -> Run {
        Run {
            file: file.into(),
            ..Run::default()
        }
    }

    #[track_caller]
    fn check_mistake(words: &str, what: &str) {
        let text = format!("pgweir: {what}\nTry \"pgweir --help\" for more information.\n");
        assert_eq!(parse_words(words), Err(Stop { text, code: 1 }), "{words:?}");
    }

    #[test]
    fn runs() {
        for (words, expected) in [
            ("a.ini", run("a.ini")),
            (
                "-d a.ini",
                Run {
                    daemon: true,
                    ..run("a.ini")
                },
            ),
            (
                "a.ini -q",
                Run {
                    quiet: true,
                    ..run("a.ini")
                },
            ),
            (
                "-v -v a.ini",
                Run {
                    verbose: 2,
                    ..run("a.ini")
                },
            ),
            (
                "-vvd a.ini",
                Run {
                    verbose: 2,
                    daemon: true,
                    ..run("a.ini")
                },
            ),
            (
                "-u joe a.ini",
                Run {
                    user: Some("joe".into()),
                    ..run("a.ini")
                },
            ),
            (
                "-ujoe a.ini",
                Run {
                    user: Some("joe".into()),
                    ..run("a.ini")
                },
            ),
            (
                "--user=joe --verb a.ini",
                Run {
                    user: Some("joe".into()),
                    verbose: 1,
                    ..run("a.ini")
                },
            ),
            (
                "-u a -u b a.ini",
                Run {
                    user: Some("b".into()),
                    ..run("a.ini")
                },
            ),
            (
                "-d -d -q -q a.ini",
                Run {
                    daemon: true,
                    quiet: true,
                    ..run("a.ini")
                },
            ),
            ("-- -odd.ini", run("-odd.ini")),
            ("./check", run("./check")),
        ] {
            assert_eq!(parse_words(words), Ok(Command::Run(expected)), "{words:?}");
        }
    }

    #[test]
    fn checks() {
        let check = |file: &str| Ok(Command::Check { file: file.into() });
        assert_eq!(parse_words("check a.ini"), check("a.ini"));
        assert_eq!(parse_words("-q check ./check"), check("./check"));
        check_mistake("check", "no configuration file specified");
        check_mistake("-d check a.ini", "check takes neither -d nor -u");
    }

    #[test]
    fn containers() {
        let quiet = Run {
            quiet: true,
            ..run("")
        };
        assert_eq!(parse_words("-q container"), Ok(Command::Container(quiet)));
        assert_eq!(
            parse_words("check env:"),
            Ok(Command::Check {
                file: "env:".into()
            })
        );
    }

    #[test]
    fn mistakes_in_the_words_of_pgbouncer() {
        check_mistake("", "no configuration file specified");
        check_mistake("-q", "no configuration file specified");
        check_mistake("-R a.ini", "invalid option -- 'R'");
        check_mistake("-z a.ini", "invalid option -- 'z'");
        check_mistake("--reboot a.ini", "unrecognized option '--reboot'");
        check_mistake("a.ini -u", "option requires an argument -- 'u'");
        check_mistake("a.ini -qu", "option requires an argument -- 'u'");
        check_mistake("a.ini --us", "option '--user' requires an argument");
        check_mistake(
            "--ver a.ini",
            "option '--ver' is ambiguous; possibilities: '--verbose' '--version'",
        );
        check_mistake(
            "--daemon=yes a.ini",
            "option '--daemon' doesn't allow an argument",
        );
        check_mistake("a.ini b.ini", "more than one configuration file specified");
    }

    #[test]
    fn version_and_help() {
        for words in ["-V", "--version", "-q -V a.ini"] {
            let stop = parse_words(words).unwrap_err();
            assert_eq!(stop.code, 0);
            let first = concat!(
                "pgweir ",
                env!("CARGO_PKG_VERSION"),
                " (compatible with PgBouncer 1.26.1)"
            );
            assert_eq!(stop.text.lines().next(), Some(first));
        }
        let help = parse_words("-h").unwrap_err();
        assert_eq!(help.code, 0);
        assert!(help.text.contains("pgweir [OPTION]... CONFIG_FILE"));
    }

    #[test]
    fn called_pgbouncer_it_has_no_commands_of_its_own() {
        let parse = |words: &str| {
            let args = words.split_whitespace().map(OsString::from);
            super::parse(args).map(|cli| cli.command)
        };
        let path = "/usr/sbin/pgbouncer";
        for word in ["check", "healthcheck", "userlist"] {
            let expected = Ok(Command::Run(run(word)));
            assert_eq!(parse(&format!("{path} {word}")), expected);
        }
        let two = parse(&format!("{path} check a.ini")).unwrap_err();
        let text = format!(
            "{path}: no configuration file specified\nTry \"{path} --help\" for more information.\n"
        );
        assert_eq!(two, Stop { text, code: 1 });
        let version = parse("pgbouncer -V").unwrap_err().text;
        assert!(version.starts_with("PgBouncer 1.26.1\n"), "{version}");
        let help = parse("pgbouncer -h").unwrap_err().text;
        assert!(!help.contains("check"), "{help}");
    }

    #[test]
    fn healthchecks() {
        let parse = |words: &str| parse_words(&format!("healthcheck {words}"));
        let of = |words: &str| match parse(words) {
            Ok(Command::Healthcheck(wanted)) => (wanted.probe(), wanted.file.is_some()),
            other => panic!("{words}: {other:?}"),
        };
        assert_eq!(of(""), (Probe::Ready, false));
        assert_eq!(of("--ready a.ini"), (Probe::Ready, true));
        assert_eq!(of("a.ini --live"), (Probe::Live, true));
        assert_eq!(of("--startup"), (Probe::Startup, false));
        for words in [
            "--live --startup",
            "--live --ready",
            "a b",
            "--url x --live",
        ] {
            assert_eq!(parse(words).unwrap_err().code, 1, "{words}");
        }
        assert_eq!(parse("--help").unwrap_err().code, 0);
    }

    #[test]
    fn userlists() {
        let parse = |args: &[&str]| {
            let args = ["pgweir", "userlist"].iter().chain(args);
            super::parse(args.map(OsString::from)).map(|cli| cli.command)
        };
        let expected = Userlist {
            from: "host=x user=y".into(),
            output: Some("f".into()),
            roles: vec!["a".into(), "b".into()],
        };
        assert_eq!(
            parse(&["--from", "host=x user=y", "a", "--output=f", "b"]),
            Ok(Command::Userlist(expected))
        );
        assert_eq!(parse(&[]).unwrap_err().code, 1);
        assert_eq!(parse(&["--help"]).unwrap_err().code, 0);
        assert_eq!(
            parse_words("./userlist"),
            Ok(Command::Run(run("./userlist")))
        );
    }

    #[test]
    fn tuning() {
        let Ok(Command::Tune(machine)) = parse_words("tune --ram 4GB --cpus 2 --disks hdd:3")
        else {
            panic!("it is a command");
        };
        assert_eq!((machine.ram, machine.pool_size()), (4 << 30, 7));
        assert_eq!(parse_words("tune").unwrap_err().code, 1);
        assert_eq!(parse_words("./tune"), Ok(Command::Run(run("./tune"))));
    }

    #[test]
    fn clap_finds_no_fault_with_the_arguments() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        Userlist::command().debug_assert();
        Machine::command().debug_assert();
    }

    proptest! {
        #[test]
        fn no_arguments_panic(args: Vec<String>) {
            let _ = parse(args.into_iter().map(OsString::from));
        }
    }
}
