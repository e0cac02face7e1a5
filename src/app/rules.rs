//! The files about who may come from where, `auth_hba_file` and `auth_ident_file`: read, handed to [`crate::auth`], and every
//! mistake told. Nothing of a file with mistakes is used: the process does not start, or goes on with the rules it has.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::parts;
use crate::auth::Method;
use crate::auth::hba::{HBA_BYTES_MAX, Hba};
use crate::auth::ident::IdentMaps;
use crate::auth::rule_file::RuleProblem;
use crate::config::{AuthType, Config, Note, Place, Places, Report, Settings, Severity};

/// Reads the rules, if there are to be any.
///
/// # Errors
/// Every mistake in either file, or why it cannot be read.
pub fn load(settings: &Settings) -> Result<Hba, Vec<RuleProblem>> {
    let (Some(path), AuthType::Hba) = (&settings.auth_hba_file, settings.auth_type) else {
        return Ok(Hba::default());
    };
    let maps = ident_maps(settings);
    let rules = Hba::load(path, maps.as_ref().ok(), &mut read);
    match (maps, rules) {
        (Ok(_), rules) => rules,
        (Err(problems), Ok(_)) => Err(problems),
        (Err(mut problems), Err(more)) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// As [`load`], with every mistake in the log.
///
/// # Errors
/// There are mistakes.
pub fn load_or_log(settings: &Settings) -> Result<Hba, String> {
    load(settings).map_err(|problems| {
        for problem in problems {
            tracing::error!("{problem}");
        }
        "broken auth_hba_file or auth_ident_file".to_owned()
    })
}

/// The files that [`load`] reads, those that the rules name included, whether or not they are there and free of mistakes.
pub fn files(settings: &Settings) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = settings.auth_ident_file.iter().cloned().collect();
    if let Some(path) = &settings.auth_hba_file {
        let mut note_and_read = |path: &Path| {
            files.push(path.to_owned());
            read(path)
        };
        // What is wrong with them is told when they are loaded.
        let _ = Hba::load(path, None, &mut note_and_read);
    }
    files
}

fn ident_maps(settings: &Settings) -> Result<IdentMaps, Vec<RuleProblem>> {
    let Some(path) = &settings.auth_ident_file else {
        return Ok(IdentMaps::default());
    };
    let bytes = read(path).map_err(|error| {
        vec![RuleProblem {
            file: path.clone(),
            line: None,
            text: format!("could not open {}: {error}", path.display()),
        }]
    })?;
    IdentMaps::parse(&bytes, path)
}

/// Reads a file of ordinary size; not a pipe, for which one could wait for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    let limit = HBA_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    match bytes.len() > HBA_BYTES_MAX {
        true => Err(io::Error::other("too large")),
        false => Ok(bytes),
    }
}

/// `pgweir check`: the configuration, and the files that it names.
pub fn check(path: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Report {
    crate::config::check(path, variables, judge)
}

/// What there is to say about TLS, about the rules, and about whom they or `auth_type` ask.
fn judge(config: &Config, places: &Places) -> Vec<Note> {
    let tls = parts::tls_remarks(&config.settings).into_iter();
    tls.map(|(setting, text)| Note::warning(&places.setting(setting), text))
        .chain(judge_rules(config, places))
        .collect()
}

fn judge_rules(config: &Config, places: &Places) -> Vec<Note> {
    let settings = &config.settings;
    if let (AuthType::Ldap, Err(text)) = (settings.auth_type, parts::ldap_options(settings)) {
        return vec![Note {
            severity: Severity::Error,
            place: places.setting("auth_ldap_options"),
            text,
        }];
    }
    match load(settings) {
        Ok(rules) => advise(&rules, settings, &places.setting("auth_hba_file")),
        Err(problems) => problems.into_iter().map(mistake).collect(),
    }
}

fn mistake(problem: RuleProblem) -> Note {
    let file = problem.file.display().to_string();
    let place = match problem.line {
        Some(line) => Place::line(&file, line),
        None => Place::whole(&file),
    };
    Note {
        severity: Severity::Error,
        place,
        text: problem.text,
    }
}

/// Rules that cannot do what they seem to be meant for.
fn advise(rules: &Hba, settings: &Settings, place: &Place) -> Vec<Note> {
    let mut notes = Vec::new();
    let file = settings.auth_hba_file.as_deref().unwrap_or(Path::new(""));
    let file = file.display().to_string();
    let has_rules = !rules.rules().is_empty();
    if settings.auth_type == AuthType::Hba && !has_rules {
        notes.push(Note::warning(
            place,
            "auth_hba_file has no rules: nobody can log in",
        ));
    }
    for rule in rules.rules() {
        let text = match rule.method {
            Method::Cert if settings.client_tls_ca_file.is_none() => {
                "cert without client_tls_ca_file: no certificate is asked for, nobody can log in"
            }
            Method::Cert if rule.is_local() => "cert on a Unix socket: nobody can log in",
            Method::Peer if !rule.is_local() => "peer is for Unix sockets: nobody can log in",
            _ => continue,
        };
        notes.push(Note::warning(&Place::line(&file, rule.line), text));
    }
    notes
}
