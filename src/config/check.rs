//! `pgweir check`: everything that can be said about a configuration without starting, for people to read.
//!
//! Mistakes come from [`super::load`]'s own readers, advice from [`super::advice`]; here the machine is asked as well:
//! files that are named, and the limit on open files. What [`exposed`] finds, a start and a reload log too.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

use super::advice::{advise, connections_max};
use super::draft::{Finished, Places};
use super::effective::Config;
use super::problem::{Note, Place, Problem, Severity};
use super::secret::LdapText;
use super::source::reason;
use super::words::{AuthType, SslMode};

/// File descriptors that are used besides those of connections: log, listeners, runtimes, DNS.
const DESCRIPTORS_BESIDES: u64 = 64;
/// The permission bit "readable by others".
const OTHERS_READ: u32 = 0o004;
/// The key in `auth_ldap_options` whose value is a password.

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What there is to know, with its place.
    pub text: String,
}

/// What `pgweir check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file that was checked.
    pub path: PathBuf,
    /// Errors first, then warnings, then notes.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(path: &Path, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.severity);
        Self {
            path: path.to_owned(),
            findings,
        }
    }

    /// Whether the configuration must not be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{}: {}", finding.severity, finding.text)?;
        }
        write!(
            f,
            "{}: {}; {}, {}, {}",
            self.path.display(),
            if self.has_errors() {
                "not usable"
            } else {
                "usable"
            },
            counted(self.count(Severity::Error), "error"),
            counted(self.count(Severity::Warning), "warning"),
            counted(self.count(Severity::Note), "note"),
        )
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Checks the configuration that [`super::load`] would load, and the files and limits that it will meet here. `judge` says what
/// others know about it.
pub fn check(
    path: &Path,
    variables: impl IntoIterator<Item = (String, String)>,
    judge: impl FnOnce(&Config, &Places) -> Vec<Note>,
) -> Report {
    let Finished {
        config,
        places,
        mut notes,
    } = match super::read(path, variables) {
        Ok(finished) => finished,
        Err(problems) => return Report::new(path, problems.iter().map(error).collect()),
    };
    notes.extend(advise(&config, &places));
    notes.extend(files(&config, &places));
    notes.extend(judge(&config, &places));
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        notes.extend(descriptors(&config, &places, soft, hard));
    }
    Report::new(path, notes.iter().map(found).collect())
}

fn error(problem: &Problem) -> Finding {
    Finding {
        severity: Severity::Error,
        text: problem.to_string(),
    }
}

fn found(note: &Note) -> Finding {
    Finding {
        severity: note.severity,
        text: note.to_string(),
    }
}

/// Whether the open-file limits leave room for all connections.
fn descriptors(config: &Config, places: &Places, soft: u64, hard: u64) -> Option<Note> {
    let clients = u64::from(config.settings.max_client_conn);
    let needed = connections_max(config).saturating_add(DESCRIPTORS_BESIDES);
    let place = places.setting("max_client_conn");
    if clients > hard {
        let text = format!(
            "max_client_conn is {clients}, but this system allows {hard} open files (ulimit -Hn)"
        );
        return Some(Note::warning(&place, text));
    }
    if needed > soft {
        let text = format!(
            "max_client_conn and pools may need {needed} open files, the limit is {soft} (ulimit -n), at most {hard}"
        );
        return Some(Note::warning(&place, text));
    }
    None
}

/// The files that the settings name: there, readable for us, and secrets not for everybody.
fn files(config: &Config, places: &Places) -> Vec<Note> {
    let settings = &config.settings;
    let mut notes = Vec::new();
    let mut look = |name: &str, path: &Option<PathBuf>| {
        if let Some(path) = path {
            notes.extend(look_at(name, path, &places.setting(name)));
        }
    };
    if !matches!(settings.auth_type, AuthType::Any | AuthType::Pam) {
        look("auth_file", &settings.auth_file);
    }
    if settings.client_tls_sslmode != SslMode::Disable {
        look("client_tls_key_file", &settings.client_tls_key_file);
        look("client_tls_cert_file", &settings.client_tls_cert_file);
        look("client_tls_ca_file", &settings.client_tls_ca_file);
    }
    if settings.server_tls_sslmode != SslMode::Disable {
        look("server_tls_key_file", &settings.server_tls_key_file);
        look("server_tls_cert_file", &settings.server_tls_cert_file);
        look("server_tls_ca_file", &settings.server_tls_ca_file);
    }
    notes.extend(exposed(config, places));
    notes
}

fn look_at(name: &str, path: &Path, place: &Place) -> Option<Note> {
    let shown = path.display();
    let metadata = match File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) => metadata,
        Err(why) => {
            let text = format!("could not open {name} {shown}: {}", reason(&why));
            return Some(Note {
                severity: Severity::Error,
                place: place.clone(),
                text,
            });
        }
    };
    if metadata.is_dir() {
        let text = format!("{name} {shown} is a directory");
        return Some(Note {
            severity: Severity::Error,
            place: place.clone(),
            text,
        });
    }
    None
}

/// The files with secrets in them that every user of this system can read: `auth_file`, keys, and files of the configuration itself
/// with passwords. Files that can't be looked at are none of them.
pub fn exposed(config: &Config, places: &Places) -> Vec<Note> {
    let settings = &config.settings;
    let named = [
        ("auth_file", &settings.auth_file),
        ("client_tls_key_file", &settings.client_tls_key_file),
        ("server_tls_key_file", &settings.server_tls_key_file),
    ];
    let named = named.into_iter().filter_map(|(name, path)| {
        let path = path.as_deref()?;
        open_to_all(name, path, &places.setting(name))
    });
    let written = files_with_passwords(config, places).into_iter();
    let written = written.filter_map(|(path, place)| {
        open_to_all("the configuration, with passwords in it,", path, place)
    });
    named.chain(written).collect()
}

fn open_to_all(name: &str, path: &Path, place: &Place) -> Option<Note> {
    let metadata = std::fs::metadata(path).ok()?;
    let text = format!(
        "{name} {} can be read by every user of this system",
        path.display()
    );
    (metadata.mode() & OTHERS_READ != 0).then(|| Note::warning(place, text))
}

/// The files in which passwords are written, each once, with the first place.
fn files_with_passwords<'a>(
    config: &'a Config,
    places: &'a Places,
) -> BTreeMap<&'a Path, &'a Place> {
    let entries = config.databases.values().chain(&config.autodb);
    let databases = entries
        .filter(|db| db.password.is_some())
        .filter_map(|db| places.databases.get(&db.name));
    let ldap = config.settings.auth_ldap_options.as_ref();
    let ldap = ldap.filter(|options| options.has_password());
    let ldap = ldap.and_then(|_| places.settings.get("auth_ldap_options"));
    let mut files = BTreeMap::new();
    for place in databases.chain(ldap) {
        // A variable of the environment is no file, and has no line.
        if place.line.is_some() {
            files.entry(Path::new(&place.file)).or_insert(place);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    fn report(text: &str, dir: &Path) -> Report {
        let path = dir.join("pgbouncer.ini");
        write(&path, text).unwrap();
        check(&path, [], |_, _| Vec::new())
    }

    #[test]
    fn a_good_file() {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users.txt");
        write(&users, "\"a\" \"b\"\n").unwrap();
        set_permissions(&users, Permissions::from_mode(0o600)).unwrap();
        let text = format!(
            "[pgbouncer]\nauth_file = {}\nadmin_users = a\nmax_client_conn = 10\n[databases]\na =\n",
            users.display()
        );
        let found = report(&text, dir.path());
        assert_eq!(found.findings, vec![]);
        assert!(
            found
                .to_string()
                .ends_with("pgbouncer.ini: usable; 0 errors, 0 warnings, 0 notes")
        );
    }

    #[test]
    fn all_mistakes_are_listed_with_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            "[pgbouncer]\nfoo = 1\npool_mode = x\n\"q\" = 1\n[databases]\na = host=x bar=1\n";
        let found = report(text, dir.path());
        assert_eq!(found.count(Severity::Error), 4);
        for line in [2, 3, 4, 6] {
            let place = format!("pgbouncer.ini:{line})");
            assert!(found.to_string().contains(&place), "{found}");
        }
        assert!(
            found
                .to_string()
                .ends_with("not usable; 4 errors, 0 warnings, 0 notes")
        );
    }

    #[test]
    fn secrets_are_to_be_private_and_files_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users.txt");
        write(&users, "").unwrap();
        set_permissions(&users, Permissions::from_mode(0o644)).unwrap();
        let note = open_to_all("auth_file", &users, &Place::none()).unwrap();
        assert_eq!(note.severity, Severity::Warning);
        assert_eq!(look_at("auth_file", &users, &Place::none()), None);
        let note = look_at("auth_file", &dir.path().join("none"), &Place::none()).unwrap();
        assert_eq!(note.severity, Severity::Error);
        assert!(
            note.text.ends_with("No such file or directory"),
            "{}",
            note.text
        );
        assert!(look_at("auth_file", dir.path(), &Place::none()).is_some());
    }

    #[test]
    fn secrets_that_everybody_can_read_are_told_at_the_start_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let users = file("users.txt", "", 0o644);
        let more = file("more.ini", "b = host=x password=p\nc = password=q\n", 0o644);
        let text = |include: &str| {
            format!(
                "[pgbouncer]\nauth_file = {users}\n[databases]\na = host=x password=p\n%include {include}\n"
            )
        };
        let main = file("main.ini", &text(&more), 0o640);
        let told = || {
            let notes = super::super::load(Path::new(&main), []).unwrap().notes;
            let notes = notes.into_iter().map(|note| note.to_string());
            notes
                .filter(|note| note.contains("every user"))
                .collect::<Vec<_>>()
        };
        let first =
            format!("auth_file {users} can be read by every user of this system ({main}:2)");
        let second = format!(
            "the configuration, with passwords in it, {more} can be read by every user of this system ({more}:1)"
        );
        assert_eq!(told(), [first, second]);
        let report = check(Path::new(&main), [], |_, _| Vec::new()).to_string();
        assert_eq!(report.matches("every user").count(), 2, "{report}");
        file("users.txt", "", 0o600);
        file("more.ini", "b = host=x password=p\n", 0o600);
        assert_eq!(told(), [""; 0]);
    }

    #[test]
    fn connections_need_descriptors() {
        let config = Config::default();
        let note =
            |soft, hard| descriptors(&config, &Places::default(), soft, hard).map(|note| note.text);
        assert_eq!(note(1024, 4096), None);
        assert!(
            note(150, 4096)
                .unwrap()
                .contains("may need 164 open files, the limit is 150")
        );
        assert!(note(50, 50).unwrap().contains("allows 50 open files"));
    }
}
