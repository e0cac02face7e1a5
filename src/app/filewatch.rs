//! Watching the files that a reload reads, so that nobody has to ask for one: setting `reload_watch`.
//!
//! The files are looked at from time to time (device, inode, size and times; what has changed is read and hashed), on a login thread.
//! Not by inotify: it watches inodes and folders, so that a name behind symbolic links (Kubernetes swaps a folder, `..data`) needs a
//! watch on every folder on the way, each to be made anew after each swap; and on NFS and some overlays it sees nothing of what others
//! do. A few `stat` every other second cost nothing.
//!
//! What has changed must be the same at two looks before it is loaded: files are written in pieces, and several belong together. What
//! was tried is not tried again, applied or refused, until something changes again. [`Watch`] is the memory for this, without a clock
//! of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::{App, rules};
use crate::config::{AuthType, Settings, SslMode};

/// Nobody needs to look more often.
const PERIOD_MIN: Duration = Duration::from_millis(10);
/// How soon a changed `reload_watch` is noticed.
const STEP: Duration = Duration::from_secs(1);
/// Times of files may be as coarse as this. A file that changed so lately is read again at the next look, even if nothing of it seems
/// to have changed since.
const COARSE_S: i64 = 3;
/// So much is read at a time.
const CHUNK: usize = 64 * 1024;

/// What the files contained when they were last loaded, or tried, and when they were last looked at.
#[derive(Debug, Default)]
pub struct Watch {
    tried: Prints,
    seen: Option<Prints>,
}

/// What was found of each file.
type Prints = BTreeMap<PathBuf, Print>;

/// What was found of a file.
#[derive(Clone, Debug)]
struct Print {
    /// `None` if it is not there.
    stamp: Option<Stamp>,
    /// It had changed so lately that `stamp` proves nothing.
    is_fresh: bool,
    content: Content,
}

/// What changes when a file does, as far as `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Hash([u8; 32]),
    /// No file that could be read: a pipe, a folder.
    Other,
    Unreadable(io::ErrorKind),
}

impl Watch {
    /// Files as they are now.
    fn of(files: impl IntoIterator<Item = PathBuf>) -> Watch {
        let nothing = Prints::new();
        let now = SystemTime::now();
        let print = |file: PathBuf| {
            let print = Print::of(&file, nothing.get(&file), now);
            (file, print)
        };
        Watch {
            tried: files.into_iter().map(print).collect(),
            seen: None,
        }
    }

    /// Watches these too, if it does not yet, as they are now.
    fn also(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let unknown = files
            .into_iter()
            .filter(|file| !self.tried.contains_key(file));
        let mut more = Watch::of(unknown.collect::<BTreeSet<_>>());
        self.tried.append(&mut more.tried);
        self.seen = None;
    }

    /// What was found last.
    fn latest(&self) -> Prints {
        self.seen.as_ref().unwrap_or(&self.tried).clone()
    }

    /// Takes in what a look has found. The files that have changed, when it is time to load them; what is then found is what was tried.
    fn take_in(&mut self, found: Prints) -> Option<Vec<PathBuf>> {
        // A look that began before the list of files became another one.
        if !found.keys().eq(self.tried.keys()) {
            return None;
        }
        let changed = differing(&self.tried, &found);
        let is_stable = match &self.seen {
            Some(seen) => differing(seen, &found).is_empty(),
            None => false,
        };
        if changed.is_empty() || !is_stable {
            self.seen = Some(found);
            return None;
        }
        *self = Watch {
            tried: found,
            seen: None,
        };
        Some(changed)
    }
}

/// The files of one list of names whose content is another.
fn differing(one: &Prints, other: &Prints) -> Vec<PathBuf> {
    let pairs = one.iter().zip(other);
    let differing = pairs.filter(|((_, one), (_, other))| one.content != other.content);
    differing.map(|((file, _), _)| file.clone()).collect()
}

/// Looks at the files again.
fn look(before: &Prints) -> Prints {
    let now = SystemTime::now();
    let again =
        |(file, print): (&PathBuf, &Print)| (file.clone(), Print::of(file, Some(print), now));
    before.iter().map(again).collect()
}

impl Print {
    fn of(file: &Path, before: Option<&Print>, now: SystemTime) -> Print {
        let metadata = match std::fs::metadata(file) {
            Ok(metadata) => metadata,
            Err(error) => return Print::unreadable(&error),
        };
        let stamp = Stamp::of(&metadata);
        let is_fresh = stamp.is_fresh(now);
        if let Some(before) = before
            && before.stamp == Some(stamp)
            && !before.is_fresh
        {
            return before.clone();
        }
        let content = match metadata.is_file() {
            true => {
                hash(file).map_or_else(|error| Content::Unreadable(error.kind()), Content::Hash)
            }
            false => Content::Other,
        };
        Print {
            stamp: Some(stamp),
            is_fresh,
            content,
        }
    }

    fn unreadable(error: &io::Error) -> Print {
        Print {
            stamp: None,
            is_fresh: false,
            content: Content::Unreadable(error.kind()),
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        self.modified.0.max(self.changed.0) + COARSE_S > now
    }
}

fn hash(file: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    // It may be a key that is read.
    let mut chunk = Zeroizing::new(vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&chunk[..length]),
        }
    }
}

/// The files that these settings name.
fn named(settings: &Settings) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = settings.auth_file.iter().cloned().collect();
    if settings.auth_type == AuthType::Hba {
        files.extend(rules::files(settings));
    }
    let sides = [
        (
            settings.client_tls_sslmode,
            [
                &settings.client_tls_cert_file,
                &settings.client_tls_key_file,
                &settings.client_tls_ca_file,
            ],
        ),
        (
            settings.server_tls_sslmode,
            [
                &settings.server_tls_cert_file,
                &settings.server_tls_key_file,
                &settings.server_tls_ca_file,
            ],
        ),
    ];
    for (mode, named) in sides {
        if mode != SslMode::Disable {
            files.extend(named.into_iter().flatten().cloned());
        }
    }
    files
}

/// The files that loading `path` will read, as they are now; none, if nobody wants to watch. To be asked for before anything is loaded,
/// so that no change falls between. `wanted` is what the file says, if it can be understood; `in_force`, what holds until then.
pub fn begin(path: &Path, wanted: Option<&Settings>, in_force: Option<&Settings>) -> Watch {
    let settings = [wanted, in_force].into_iter().flatten();
    if settings
        .clone()
        .all(|settings| settings.reload_watch.is_zero())
    {
        return Watch::default();
    }
    let mut files: BTreeSet<PathBuf> = crate::config::files(path).into_iter().collect();
    files.extend(settings.flat_map(named));
    Watch::of(files)
}

impl App {
    /// A setting was changed by hand: its file is watched too, and if that was `reload_watch` itself, all are from now on.
    pub(super) fn watch_also(&self) {
        let config = self.config_now();
        if config.settings.reload_watch.is_zero() {
            *self.watch.lock() = Watch::default();
            return;
        }
        let path = config.settings.conffile.as_ref().unwrap_or(&config.path);
        let mut files: BTreeSet<PathBuf> = crate::config::files(path).into_iter().collect();
        files.extend(named(&config.settings));
        self.watch.lock().also(files);
    }
}

/// Looks at the files as often as is wanted, and reloads when it is time.
pub async fn run(app: Arc<App>, logins: Handle) {
    loop {
        until_next_look(&app).await;
        let before = app.watch.lock().latest();
        let looked = logins.spawn_blocking(move || look(&before));
        // There are no login threads any more: the process ends.
        let Ok(found) = looked.await else { return };
        let changed = app.watch.lock().take_in(found);
        if let Some(files) = changed {
            let names: Vec<String> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            tracing::info!("files changed, re-reading config: {}", names.join(", "));
            app.reload_as_told();
        }
    }
}

async fn until_next_look(app: &App) {
    let last = Instant::now();
    loop {
        let period = app.config_now().settings.reload_watch;
        let mut nap = STEP;
        if !period.is_zero() {
            let left = period.max(PERIOD_MIN).saturating_sub(last.elapsed());
            if left.is_zero() {
                return;
            }
            nap = nap.min(left);
        }
        tokio::time::sleep(nap).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A look, and what is to be loaded after it.
    fn looked(watch: &mut Watch) -> Option<Vec<PathBuf>> {
        let found = look(&watch.latest());
        watch.take_in(found)
    }

    #[test]
    fn a_change_is_loaded_when_it_has_come_to_rest_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        fs::write(&one, "a").unwrap();
        let mut watch = Watch::of([one.clone(), two.clone()]);
        assert_eq!(looked(&mut watch), None);
        fs::write(&one, "ab").unwrap();
        assert_eq!(looked(&mut watch), None);
        fs::write(&one, "abc").unwrap();
        assert_eq!(looked(&mut watch), None, "it is still being written");
        fs::write(&two, "new").unwrap();
        assert_eq!(looked(&mut watch), None, "nor is all of it there");
        assert_eq!(looked(&mut watch), Some(vec![one.clone(), two.clone()]));
        assert_eq!(looked(&mut watch), None);
        assert_eq!(looked(&mut watch), None);
        fs::remove_file(&two).unwrap();
        assert_eq!(looked(&mut watch), None);
        assert_eq!(looked(&mut watch), Some(vec![two]));
    }

    #[test]
    fn what_comes_back_as_it_was_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::of([file.clone()]);
        for content in ["b", "a", "a"] {
            fs::remove_file(&file).unwrap();
            fs::write(&file, content).unwrap();
            assert_eq!(looked(&mut watch), None);
        }
    }

    #[test]
    fn the_same_size_within_the_same_moment_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::of([file.clone()]);
        // As if the time of the file were too coarse to tell.
        fs::write(&file, "b").unwrap();
        let stamp = Stamp::of(&fs::metadata(&file).unwrap());
        watch.tried.get_mut(&file).unwrap().stamp = Some(stamp);
        assert_eq!(looked(&mut watch), None);
        assert_eq!(looked(&mut watch), Some(vec![file]));
    }

    #[test]
    fn old_files_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "a").unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        let first = Print::of(&file, None, later);
        let marked = Print {
            content: Content::Other,
            ..first
        };
        assert_eq!(
            Print::of(&file, Some(&marked), later).content,
            Content::Other
        );
        let fresh = Print {
            is_fresh: true,
            ..marked
        };
        assert!(matches!(
            Print::of(&file, Some(&fresh), later).content,
            Content::Hash(_)
        ));
    }

    #[test]
    fn a_swapped_link_to_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, content) in [("v1", "a"), ("v2", "b"), ("v3", "b")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("f"), content).unwrap();
        }
        let swap = |to: &str| {
            symlink(to, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
        };
        swap("v1");
        symlink("..data/f", at("f")).unwrap();
        let mut watch = Watch::of([at("f")]);
        swap("v2");
        assert_eq!(looked(&mut watch), None);
        assert_eq!(looked(&mut watch), Some(vec![at("f")]));
        swap("v3");
        assert_eq!(
            (looked(&mut watch), looked(&mut watch)),
            (None, None),
            "the same content"
        );
    }

    #[test]
    fn a_look_of_another_list_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let mut watch = Watch::of([]);
        let found = look(&watch.latest());
        watch.also([file.clone()]);
        fs::write(&file, "a").unwrap();
        assert_eq!(watch.take_in(found), None);
        assert_eq!(looked(&mut watch), None);
        assert_eq!(looked(&mut watch), Some(vec![file]));
    }

    #[test]
    fn all_files_of_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let path = |name: &str| at(name).display().to_string();
        fs::write(at("hba"), format!("local @{} all trust\n", path("names"))).unwrap();
        fs::write(at("names"), "a\n").unwrap();
        fs::write(
            at("inner.ini"),
            format!("reload_watch = 1\n%include {}\n", path("missing.ini")),
        )
        .unwrap();
        let text = format!(
            "[pgbouncer]\nauth_file = {}\nauth_type = hba\nauth_hba_file = {}\nserver_tls_ca_file = {}\n\
             client_tls_ca_file = {}\n%include {}\n",
            path("users"),
            path("hba"),
            path("ca"),
            path("unused"),
            path("inner.ini"),
        );
        fs::write(at("p.ini"), &text).unwrap();
        let in_force = Settings {
            reload_watch: STEP,
            ..Settings::default()
        };
        let watched = |watch: &Watch| -> Vec<PathBuf> { watch.tried.keys().cloned().collect() };
        // It can't be loaded, for a file is missing; that one is watched too.
        let watch = begin(&at("p.ini"), None, Some(&in_force));
        assert_eq!(
            watched(&watch),
            ["inner.ini", "missing.ini", "p.ini"].map(at)
        );
        fs::write(at("missing.ini"), "").unwrap();
        let settings = crate::config::load(&at("p.ini"), [])
            .unwrap()
            .config
            .settings;
        let watch = begin(&at("p.ini"), Some(&settings), None);
        let all = [
            "ca",
            "hba",
            "inner.ini",
            "missing.ini",
            "names",
            "p.ini",
            "users",
        ];
        assert_eq!(watched(&watch), all.map(at));
        let unwatched = begin(&at("p.ini"), Some(&Settings::default()), None);
        assert!(unwatched.tried.is_empty());
    }
}
