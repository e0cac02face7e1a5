//! What is wrong with a configuration, and what is worth knowing about it, each with its place.

use std::fmt;

/// A file and line, or the name of an environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named, or the variable; empty = no place in particular.
    pub file: String,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl Place {
    /// A line of a file.
    pub fn line(file: &str, line: usize) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(line),
        }
    }

    /// A file as a whole, or an environment variable.
    pub fn whole(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
        }
    }

    /// No place in particular.
    pub fn none() -> Self {
        Self::default()
    }
}

impl fmt::Display for Place {
    /// ` (file:line)`, ` (variable)`, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => Ok(()),
            (file, None) => write!(f, " ({file})"),
            (file, Some(line)) => write!(f, " ({file}:{line})"),
        }
    }
}

/// A mistake: a configuration with any is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or the environment variable; empty = no place in particular.
    pub file: String,
    /// Counted from 1.
    pub line: Option<usize>,
    /// What is wrong, in PgBouncer's words where it has some.
    pub text: String,
    /// What was expected, where that helps.
    pub hint: Option<String>,
}

impl Problem {
    /// A mistake at a place.
    pub fn new(place: &Place, text: impl Into<String>) -> Self {
        Self {
            file: place.file.clone(),
            line: place.line,
            text: text.into(),
            hint: None,
        }
    }

    /// The same, with what was expected.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    fn place(&self) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, self.place())?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not loaded, or nothing would work with it.
    Error,
    /// It loads, and something will not work as it seems to be meant.
    Warning,
    /// It loads; something is good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Something worth knowing about a configuration that loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// Where it was written.
    pub place: Place,
    /// What there is to know.
    pub text: String,
}

impl Note {
    /// Something that will not work as it seems to be meant.
    pub fn warning(place: &Place, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            place: place.clone(),
            text: text.into(),
        }
    }

    /// Something that is good to know.
    pub fn info(place: &Place, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Note,
            place: place.clone(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_text() {
        let problem = Problem::new(&Place::line("a.ini", 4), "syntax error in configuration");
        assert_eq!(
            problem.to_string(),
            "syntax error in configuration (a.ini:4)"
        );
        assert_eq!(
            problem.hint("no").to_string(),
            "syntax error in configuration (a.ini:4): no"
        );
        assert_eq!(
            Note::info(&Place::whole("PGWEIR_X"), "x").to_string(),
            "x (PGWEIR_X)"
        );
        assert_eq!(Note::info(&Place::none(), "x").to_string(), "x");
    }
}
