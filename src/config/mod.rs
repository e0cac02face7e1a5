//! What was written (ini file, TOML file, environment) and what it means.
//!
//! This room knows nobody. [`load`] yields an immutable [`Config`]; a reload loads another one, compares and publishes.
//! All mistakes are collected and told together, each with its place; a file with any mistake has no effect at all.
//!
//! | file | subject |
//! |---|---|
//! | [`table`], [`row`] | every setting once, and what a row says |
//! | [`settings`], [`entry`] | the settings by name; `[databases]`, `[users]`, `[peers]` entries and their keys |
//! | [`value`], [`number`], [`words`], [`secret`] | from text to typed values and back |
//! | [`ini`], [`connstr`], [`url`], [`toml`], [`environment`] | the notations |
//! | [`container`], [`mod@variables`] | a configuration that is written in the environment alone |
//! | [`source`], [`draft`] | reading files; collecting what they say, and the mistakes |
//! | [`effective`] | [`Config`], and what follows from it for one pool or client |
//! | [`advice`], [`check`](mod@check), [`problem`] | what is worth knowing, and the report of `pgweir check` |

pub mod advice;
pub mod check;
pub mod connstr;
pub mod container;
pub mod draft;
pub mod effective;
pub mod entry;
pub mod environment;
pub mod ini;
pub mod number;
pub mod problem;
pub mod row;
pub mod secret;
pub mod settings;
pub mod source;
pub mod table;
pub mod toml;
pub mod url;
pub mod value;
pub mod variables;
pub mod words;

use std::path::Path;

pub use self::check::{Finding, Report, check};
pub use self::effective::{ClientLimits, Config, PoolSettings};
pub use self::entry::{Database, Peer, UserSettings};
pub use self::environment::variables;
pub use self::problem::{Note, Place, Problem, Severity};
pub use self::row::{Remark, Scope, Setting};
pub use self::secret::{LdapText, Secret};
pub use self::settings::{Contradiction, SettingError, Settings};
pub use self::table::SETTINGS;
pub use self::value::CONSOLE_DATABASE;
pub use self::words::{
    AuthType, LoadBalanceHosts, LogFormat, OnTerm, PoolMode, SslMode, TlsProtocols,
};

pub use self::draft::Places;
use self::draft::{Draft, Finished};
pub use self::source::files;

/// A configuration that was read without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is worth knowing about it: settings without effect, sums that do not add up.
    pub notes: Vec<Note>,
}

/// Reads the configuration file at `path` (TOML by its extension, `env:` for what the `variables` alone say, else ini), overridden by
/// those of the `variables` that begin with `PGWEIR_` (for the process's own, give [`variables`](fn@variables)).
///
/// # Errors
/// All mistakes together, in the order of the file. Nothing of a file with mistakes is used.
pub fn load(
    path: &Path,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Vec<Problem>> {
    let Finished {
        config,
        places,
        mut notes,
    } = read(path, variables)?;
    notes.extend(advice::advise(&config, &places));
    notes.extend(check::exposed(&config, &places));
    Ok(Loaded { config, notes })
}

/// The settings of a file, or of none, as far as they can be read: for somebody who has to find a process that runs with them, and
/// that goes on running when the file gets broken.
pub fn settings_as_far_as_readable(
    path: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Settings {
    let variables: Vec<(String, String)> = variables.into_iter().collect();
    let mut draft = Draft::default();
    if let Some(path) = path {
        read_written(path, &variables, &mut draft);
    }
    environment::read(&variables, &mut draft);
    draft.into_settings()
}

/// Takes what is written in a file, or in variables where there is none.
fn read_written(path: &Path, variables: &[(String, String)], draft: &mut Draft) {
    match container::is_environment(path) {
        true => container::read(variables, container::read_value, draft),
        false => source::read(path, draft),
    }
}

fn read(
    path: &Path,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Finished, Vec<Problem>> {
    let variables: Vec<(String, String)> = variables.into_iter().collect();
    let mut draft = Draft::default();
    let is_environment = container::is_environment(path);
    read_written(path, &variables, &mut draft);
    environment::read(&variables, &mut draft);
    if !is_environment {
        container::around_file(&variables, path, &mut draft);
    }
    draft.finish(path, !is_environment && !source::is_toml(path))
}

#[cfg(test)]
mod tests;
