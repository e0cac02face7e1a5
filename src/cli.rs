//! The command line: `pgweir [-q] [-v…] [-d] [-u USER] [-V] [-h] FILE`, and `pgweir check FILE`.
//!
//! Options, texts and exit codes are PgBouncer's, so that its service files and scripts work. A pure function from
//! arguments to what is asked for; what is then done is the business of [`crate::app`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser};

use crate::COMPATIBLE_VERSION;

/// The word that asks for a check instead of a run. A file of this name is reached as `./check`.
const CHECK: &str = "check";

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
    /// Look the configuration over and print a report.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
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
    let program = program_name(&args);
    let parsed = Arguments::try_parse_from(&args).map_err(|error| stop(&program, &error))?;
    command(parsed)
        .map(|command| Cli { command })
        .map_err(|what| Stop::mistake(&program, what))
}

fn program_name(args: &[OsString]) -> String {
    args.first().map_or_else(
        || "pgweir".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn command(arguments: Arguments) -> Result<Command, &'static str> {
    const NO_FILE: &str = "no configuration file specified";
    const MANY_FILES: &str = "more than one configuration file specified";
    match arguments.files.as_slice() {
        [] => Err(NO_FILE),
        [word] if word == Path::new(CHECK) => Err(NO_FILE),
        [word, file] if word == Path::new(CHECK) => match (arguments.daemon, arguments.user) {
            (false, None) => Ok(Command::Check { file: file.clone() }),
            _ => Err("check takes neither -d nor -u"),
        },
        [file] => Ok(Command::Run(Run {
            file: file.clone(),
            quiet: arguments.quiet,
            verbose: arguments.verbose,
            daemon: arguments.daemon,
            user: arguments.user,
        })),
        _ => Err(MANY_FILES),
    }
}

/// What clap objects to, in the words of getopt, which PgBouncer uses.
fn stop(program: &str, error: &clap::Error) -> Stop {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        Some(ContextValue::Strings(arguments)) => arguments.first().map_or("", String::as_str),
        _ => "",
    };
    // clap adds the name of the value: `--user <USERNAME>`.
    let option = argument.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp => Stop::information(help(program)),
        ErrorKind::DisplayVersion => Stop::information(version()),
        ErrorKind::UnknownArgument => match option.strip_prefix('-') {
            Some(letter) if !letter.starts_with('-') => {
                Stop::mistake(program, &format!("invalid option -- '{letter}'"))
            }
            _ => Stop::mistake(program, &format!("unrecognized option '{option}'")),
        },
        ErrorKind::InvalidValue => {
            Stop::mistake(program, &format!("option '{option}' requires an argument"))
        }
        ErrorKind::TooManyValues => Stop::mistake(
            program,
            &format!("option '{option}' doesn't allow an argument"),
        ),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Stop::mistake(program, first.strip_prefix("error: ").unwrap_or(first))
        }
    }
}

/// What `-V` prints.
pub fn version() -> String {
    format!(
        "pgweir {} (compatible with PgBouncer {COMPATIBLE_VERSION})\ntls: rustls (ring)\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn help(program: &str) -> String {
    format!(
        "{program} is a connection pooler for PostgreSQL.

Usage:
  {program} [OPTION]... CONFIG_FILE
  {program} check CONFIG_FILE

Options:
  -d, --daemon         run in background (as a daemon)
  -q, --quiet          run quietly
  -u, --user=USERNAME  assume identity of USERNAME
  -v, --verbose        increase verbosity
  -V, --version        show version, then exit
  -h, --help           show this help, then exit

CONFIG_FILE is an ini file as PgBouncer's, or a TOML file if its name ends in .toml.
\"check\" looks it over without starting; a file of that name is reached as ./check.
"
    )
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
    fn mistakes_in_the_words_of_pgbouncer() {
        check_mistake("", "no configuration file specified");
        check_mistake("-q", "no configuration file specified");
        check_mistake("-R a.ini", "invalid option -- 'R'");
        check_mistake("-z a.ini", "invalid option -- 'z'");
        check_mistake("--reboot a.ini", "unrecognized option '--reboot'");
        check_mistake("a.ini -u", "option '--user' requires an argument");
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
    fn clap_finds_no_fault_with_the_arguments() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    proptest! {
        #[test]
        fn no_arguments_panic(args: Vec<String>) {
            let _ = parse(args.into_iter().map(OsString::from));
        }
    }
}
