//! Scenario files: a line language that is read here and played by [`play`](crate::play). README.md beside this file describes it.
//!
//! A file holds several scenarios, each opened by `== title`. Steps are lines; an indented line belongs to the step above it. What stands
//! before the first title is played at the start of every scenario of the file. `#` opens a comment line.

use std::path::Path;

/// One scripted situation.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// `area/file`, without the ending.
    pub file: String,
    pub title: String,
    pub steps: Vec<Step>,
}

/// One line, with the indented lines below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub line: String,
    pub block: Vec<String>,
}

impl Scenario {
    /// `area/file: title`, by which a scenario is chosen, reported and listed.
    pub fn name(&self) -> String {
        format!("{}: {}", self.file, self.title)
    }
}

impl Step {
    /// The step as it was written.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.line);
        for line in &self.block {
            text.push_str(&format!("    {line}\n"));
        }
        text
    }
}

/// The scenarios of one file's text.
pub fn parse(file: &str, text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut preamble: Vec<Step> = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            scenarios.push(Scenario {
                file: file.to_string(),
                title: title.trim().to_string(),
                steps: preamble.clone(),
            });
            continue;
        }
        let steps = scenarios.last_mut().map_or(&mut preamble, |s| &mut s.steps);
        if let Some(inner) = indented(line) {
            let step = steps
                .last_mut()
                .unwrap_or_else(|| panic!("{file}: an indented line under nothing: {line}"));
            step.block.push(inner.to_string());
        } else {
            steps.push(Step {
                line: line.trim_end().to_string(),
                block: Vec::new(),
            });
        }
    }
    scenarios
}

/// What stands after the indentation of a block's line: four blanks (or two) are taken off, more belong to the text.
fn indented(line: &str) -> Option<&str> {
    line.strip_prefix("    ")
        .or_else(|| line.strip_prefix("  "))
}

/// All scenarios below a folder, in the order of their names.
pub fn read_all(folder: &Path) -> Vec<Scenario> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a scenario file");
        let name = path
            .strip_prefix(folder)
            .expect("found below it")
            .with_extension("");
        all.extend(parse(&name.display().to_string(), &text));
    }
    all
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the scenarios' folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "txt") {
            files.push(path);
        }
    }
}

/// Splits into words at blanks; `"…"` keeps blanks together, with `\n \0 \t \" \\` and `\xHH` inside.
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| *c == ' ').is_some() {}
        if chars.peek().is_none() {
            return out;
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| *c != ' ') {
            if c == '"' {
                quoted(&mut chars, &mut word);
            } else {
                word.push(c);
            }
        }
        out.push(word);
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars>, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            '"' => return,
            '\\' => match chars.next() {
                Some('n') => word.push('\n'),
                Some('t') => word.push('\t'),
                Some('0') => word.push('\0'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).collect();
                    word.push(char::from(
                        u8::from_str_radix(&hex, 16).expect("two hexadecimal digits"),
                    ));
                }
                Some(other) => word.push(other),
                None => {}
            },
            _ => word.push(c),
        }
    }
}

/// The first word and the rest.
pub fn head(text: &str) -> (&str, &str) {
    match text.split_once(' ') {
        Some((first, rest)) => (first, rest.trim_start()),
        None => (text, ""),
    }
}
