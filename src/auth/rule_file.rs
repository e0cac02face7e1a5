//! The common ground of the HBA file and the ident file: lines of fields, `#` comments, quotes, and the mistakes in them.
//!
//! Pure. What the fields mean is told by [`hba`](super::hba) and [`ident`](super::ident). Nothing is ever skipped: a line that
//! cannot be understood is a [`RuleProblem`], and a file with one has no effect at all.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The most problems of one load that are kept; the rest is counted.
const PROBLEMS_MAX: usize = 100;
/// Bytes of a word that a problem repeats at most.
const SHOWN_BYTES_MAX: usize = 80;

/// A line that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The file.
    pub file: PathBuf,
    /// Counted from 1; `None` if the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong. Never holds options, which may be passwords.
    pub text: String,
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            Some(line) => write!(f, "{} ({file}:{line})", self.text),
            None => write!(f, "{} ({file})", self.text),
        }
    }
}

impl std::error::Error for RuleProblem {}

/// The problems of one load, not more than can be read.
#[derive(Default)]
pub(super) struct Problems {
    kept: Vec<RuleProblem>,
    dropped: usize,
}

impl Problems {
    pub(super) fn add(&mut self, file: &Path, line: Option<usize>, fault: impl Into<Fault>) {
        if self.kept.len() >= PROBLEMS_MAX {
            self.dropped += 1;
            return;
        }
        self.kept.push(RuleProblem {
            file: file.to_owned(),
            line,
            text: fault.into().into_owned(),
        });
    }

    /// The value if there are none.
    pub(super) fn or<T>(mut self, value: T, file: &Path) -> Result<T, Vec<RuleProblem>> {
        if self.dropped > 0 {
            self.kept.push(RuleProblem {
                file: file.to_owned(),
                line: None,
                text: format!("{} more mistakes are not shown", self.dropped),
            });
        }
        match self.kept.is_empty() {
            true => Ok(value),
            false => Err(self.kept),
        }
    }
}

/// What is wrong with a line.
pub(super) type Fault = Cow<'static, str>;

/// How much of a word stood in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Nothing: it may be a keyword.
    Bare,
    /// All of it: it is a name, whatever it looks like.
    Whole,
    /// A part of it, as in `map="my map"`. Only options may be so.
    Part,
}

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes.
    pub(super) text: Vec<u8>,
    pub(super) quoting: Quoting,
}

impl Word {
    /// Is it this keyword?
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.quoting == Quoting::Bare && self.text == keyword.as_bytes()
    }

    /// Does it stand without quotes and begin with this sign?
    pub(super) fn begins_with(&self, sign: u8) -> bool {
        self.quoting == Quoting::Bare && self.text.first() == Some(&sign)
    }

    /// For a problem's text.
    pub(super) fn shown(&self) -> String {
        shown(&self.text)
    }

    /// The name that it is, if it is one: not empty, not half in quotes, and not a keyword in the wrong letters, which would
    /// be a rule that silently matches nobody.
    pub(super) fn name(&self, keywords: &[&str]) -> Result<&[u8], Fault> {
        if self.text.is_empty() {
            return Err("empty name".into());
        }
        if self.quoting == Quoting::Part {
            return Err(format!("{} is partly in quotes", self.shown()).into());
        }
        let keyword = keywords
            .iter()
            .find(|keyword| self.text.eq_ignore_ascii_case(keyword.as_bytes()));
        match keyword {
            Some(keyword) if self.quoting == Quoting::Bare => Err(format!(
                "{}: write the keyword as {keyword}, or a name in quotes",
                self.shown()
            )
            .into()),
            _ => Ok(&self.text),
        }
    }
}

/// Some of the file's own words, for a problem's text.
pub(super) fn shown(text: &[u8]) -> String {
    let cut = &text[..text.len().min(SHOWN_BYTES_MAX)];
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", String::from_utf8_lossy(cut).escape_debug())
}

/// The rest of a line.
pub(super) struct Line<'a> {
    rest: &'a [u8],
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

impl<'a> Line<'a> {
    /// A line without its line feed.
    ///
    /// # Errors
    /// It holds signs that no text has, or goes on in the next line.
    pub(super) fn new(line: &'a [u8]) -> Result<Line<'a>, Fault> {
        let line = strip_comment(line)?;
        if line.iter().any(|byte| *byte < b' ' && !is_blank(*byte)) {
            return Err("control character".into());
        }
        if line.ends_with(b"\\") {
            return Err("a line cannot be continued with \\ in the next one".into());
        }
        Ok(Line { rest: line })
    }

    /// Is there nothing more?
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field: words with commas between them.
    ///
    /// # Errors
    /// A comma has no word at one of its sides.
    pub(super) fn list(&mut self) -> Result<Option<Vec<Word>>, Fault> {
        let Some(first) = self.word()? else {
            return Ok(None);
        };
        let mut words = vec![first];
        while let Some(after) = self.rest.strip_prefix(b",") {
            self.rest = skip_blanks(after);
            words.push(self.word()?.ok_or("misplaced comma")?);
        }
        self.rest = skip_blanks(self.rest);
        match self.rest.first() {
            Some(b',') => Err("misplaced comma".into()),
            _ => Ok(Some(words)),
        }
    }

    /// The next field, which must be a single word.
    ///
    /// # Errors
    /// It is a list.
    pub(super) fn single(&mut self) -> Result<Option<Word>, Fault> {
        let Some(words) = self.list()? else {
            return Ok(None);
        };
        match <[Word; 1]>::try_from(words) {
            Ok([word]) => Ok(Some(word)),
            Err(words) => {
                Err(format!("a list cannot stand here: {}, ...", words[0].shown()).into())
            }
        }
    }

    /// All that follows, as it was written, without the comment.
    pub(super) fn tail(self) -> &'a [u8] {
        self.rest
    }

    /// Reads up to a blank or comma outside quotes.
    fn word(&mut self) -> Result<Option<Word>, Fault> {
        let (mut text, mut quotes, mut bare) = (Vec::new(), 0_usize, false);
        let mut rest = self.rest;
        while let [byte, after @ ..] = rest {
            rest = match byte {
                b',' => break,
                byte if is_blank(*byte) => break,
                b'"' => {
                    quotes += 1;
                    take_quoted(after, &mut text)?
                }
                byte => {
                    text.push(*byte);
                    bare = true;
                    after
                }
            };
        }
        self.rest = rest;
        let quoting = match (quotes, bare) {
            (0, false) if rest.first() == Some(&b',') => return Err("misplaced comma".into()),
            (0, false) => return Ok(None),
            (0, true) => Quoting::Bare,
            (1, false) => Quoting::Whole,
            _ => Quoting::Part,
        };
        Ok(Some(Word { text, quoting }))
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[blanks..]
}

/// Takes up to the closing quote; a doubled one stands for itself.
fn take_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Fault> {
    loop {
        let end = rest.iter().position(|byte| *byte == b'"');
        let end = end.ok_or("quotes are not closed on the same line")?;
        text.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"\"") {
            None => return Ok(rest),
            Some(after) => {
                text.push(b'"');
                rest = after;
            }
        }
    }
}

/// The line up to a `#` outside quotes, and without blanks around it.
fn strip_comment(line: &[u8]) -> Result<&[u8], Fault> {
    let mut in_quotes = false;
    let mut end = line.len();
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'"' => in_quotes = !in_quotes,
            b'#' if !in_quotes => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    if in_quotes {
        return Err("quotes are not closed on the same line".into());
    }
    let line = skip_blanks(&line[..end]);
    let blanks = line.iter().rev().take_while(|byte| is_blank(**byte));
    Ok(&line[..line.len() - blanks.count()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(text: &str, quoting: Quoting) -> Word {
        Word {
            text: text.into(),
            quoting,
        }
    }

    fn lists(line: &str) -> Result<Vec<Vec<Word>>, String> {
        let mut line = Line::new(line.as_bytes()).map_err(Cow::into_owned)?;
        let mut found = Vec::new();
        while let Some(words) = line.list().map_err(Cow::into_owned)? {
            found.push(words);
        }
        assert!(line.is_empty());
        Ok(found)
    }

    fn texts(line: &str) -> Vec<Vec<String>> {
        let text = |word: Word| String::from_utf8(word.text).unwrap();
        let lists = lists(line).unwrap().into_iter();
        lists
            .map(|words| words.into_iter().map(text).collect())
            .collect()
    }

    #[test]
    fn fields_lists_and_comments() {
        assert_eq!(texts(""), Vec::<Vec<String>>::new());
        assert_eq!(texts("  # \"no"), Vec::<Vec<String>>::new());
        assert_eq!(texts("a b\tc\r"), [["a"], ["b"], ["c"]]);
        assert_eq!(texts("a,b, c d#e"), [vec!["a", "b", "c"], vec!["d"]]);
        assert_eq!(texts("\"a #,\" b"), [["a #,"], ["b"]]);
    }

    #[test]
    fn quotes() {
        use Quoting::{Bare, Part, Whole};
        for (text, expected) in [
            ("all", word("all", Bare)),
            ("\"all\"", word("all", Whole)),
            ("\"\"", word("", Whole)),
            ("\"a\"\"b\"", word("a\"b", Whole)),
            ("map=\"a b\"", word("map=a b", Part)),
            ("\"a\"b", word("ab", Part)),
        ] {
            assert_eq!(lists(text), Ok(vec![vec![expected]]), "{text}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read() {
        for (line, fault) in [
            ("a ,b", "misplaced comma"),
            (",a", "misplaced comma"),
            ("a,", "misplaced comma"),
            ("a,,b", "misplaced comma"),
            ("a, # b", "misplaced comma"),
            ("\"a", "quotes are not closed on the same line"),
            ("a \"b # c", "quotes are not closed on the same line"),
            ("a\0b", "control character"),
            (
                "a \\ # b",
                "a line cannot be continued with \\ in the next one",
            ),
        ] {
            assert_eq!(lists(line), Err(fault.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_name_is_no_half_quoted_word_and_no_misspelt_keyword() {
        let name = |text, quoting| word(text, quoting).name(&["all"]).map(<[u8]>::to_vec);
        assert_eq!(name("bob", Quoting::Bare), Ok(b"bob".to_vec()));
        assert_eq!(name("ALL", Quoting::Whole), Ok(b"ALL".to_vec()));
        assert!(name("All", Quoting::Bare).is_err() && name("all", Quoting::Bare).is_err());
        assert!(name("", Quoting::Whole).is_err() && name("bob", Quoting::Part).is_err());
    }

    #[test]
    fn only_so_many_problems_are_kept() {
        let (file, mut problems) = (Path::new("f"), Problems::default());
        for line in 0..PROBLEMS_MAX + 7 {
            problems.add(file, Some(line), "wrong");
        }
        let kept = problems.or((), file).unwrap_err();
        assert_eq!(kept.len(), PROBLEMS_MAX + 1);
        assert_eq!(kept[1].to_string(), "wrong (f:1)");
        let last = kept[PROBLEMS_MAX].to_string();
        assert_eq!(last, "7 more mistakes are not shown (f)");
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line: Vec<u8>) {
            if let Ok(mut line) = Line::new(&line) {
                while let Ok(Some(_)) = line.list() {}
            }
        }

        #[test]
        fn what_is_quoted_is_read_back(names in prop::collection::vec("[^\0-\x1f]{0,8}", 1..5)) {
            let quoted: Vec<String> = names.iter().map(|n| format!("\"{}\"", n.replace('"', "\"\""))).collect();
            prop_assert_eq!(texts(&quoted.join(",")), [names.clone()]);
            prop_assert_eq!(texts(&quoted.join(" # ")).len(), 1);
        }
    }
}
