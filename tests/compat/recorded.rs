//! PgBouncer's transcripts in the repository, one file per scenario file, so that machines without a PgBouncer can compare too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;

/// All recorded transcripts, by file and title.
pub struct Recorder {
    folder: PathBuf,
    files: BTreeMap<String, BTreeMap<String, String>>,
    /// What was put in since it was opened.
    new: BTreeMap<String, BTreeMap<String, String>>,
}

impl Recorder {
    pub fn open(folder: &Path) -> Recorder {
        let mut files = BTreeMap::new();
        read(folder, folder, &mut files);
        Recorder {
            folder: folder.to_path_buf(),
            files,
            new: BTreeMap::new(),
        }
    }

    pub fn get(&self, scenario: &Scenario) -> Option<&str> {
        let file = self.files.get(&scenario.file)?;
        file.get(&scenario.title).map(String::as_str)
    }

    pub fn put(&mut self, scenario: &Scenario, transcript: &str) {
        let file = self.new.entry(scenario.file.clone()).or_default();
        file.insert(scenario.title.clone(), transcript.to_string());
    }

    /// Writes what was put in; after a complete run, what was not is forgotten.
    pub fn write(mut self, complete: bool) {
        if complete {
            let _ = std::fs::remove_dir_all(&self.folder);
            self.files.clear();
        }
        for (name, new) in self.new {
            let file = self.files.entry(name.clone()).or_default();
            file.extend(new);
            let mut text = String::new();
            for (title, transcript) in file {
                text.push_str(&format!("== {title}\n{transcript}"));
            }
            let path = self.folder.join(&name).with_extension("txt");
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
    }
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<String, BTreeMap<String, String>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(root, &path, files);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text file");
        let name = path
            .strip_prefix(root)
            .expect("below it")
            .with_extension("");
        files.insert(name.display().to_string(), transcripts(&text));
    }
}

fn transcripts(text: &str) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("== ") {
            title = next.to_string();
            out.insert(title.clone(), String::new());
        } else if let Some(transcript) = out.get_mut(&title) {
            transcript.push_str(line);
            transcript.push('\n');
        }
    }
    out
}
