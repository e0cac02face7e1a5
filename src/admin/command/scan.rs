//! The words of the console's language: where one ends, what its quotes mean, what is a comment.

/// What has not been read yet.
pub(super) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Scanner { rest: text }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn is_at(&self, c: char) -> bool {
        self.rest.starts_with(c)
    }

    /// Reads this character, if it is next.
    pub(super) fn takes(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Skips white space and comments; `None` for a comment that never ends.
    pub(super) fn blank(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("--") {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if self.rest.starts_with("/*") {
                self.rest = behind_comment(self.rest)?;
            } else {
                return Some(());
            }
        }
    }

    /// A bare word, or one in double quotes, which may not be empty.
    pub(super) fn word(&mut self) -> Option<String> {
        if self.is_at('"') {
            return self.quoted('"').filter(|word| !word.is_empty());
        }
        self.run(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'))
    }

    /// The value of a setting: bare up to a blank, a quote or `;`, or a string, or a word in double quotes.
    pub(super) fn value(&mut self) -> Option<String> {
        match self.rest.chars().next()? {
            quote @ ('\'' | '"') => self.quoted(quote),
            _ => self.run(|c| !c.is_whitespace() && !matches!(c, ';' | '\'' | '"')),
        }
    }

    /// The longest run of such characters, up to a comment; `None` if it is empty.
    fn run(&mut self, belongs: impl Fn(char) -> bool) -> Option<String> {
        let text = self.rest;
        let ends = |(at, c): (usize, char)| !belongs(c) || is_comment(&text[at..]);
        let end = text.char_indices().find(|step| ends(*step));
        let (run, rest) = text.split_at(end.map_or(text.len(), |(at, _)| at));
        self.rest = rest;
        (!run.is_empty()).then(|| run.to_owned())
    }

    /// A text in such quotes, in which two stand for one; `None` if it never ends.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.rest.strip_prefix(quote)?;
        loop {
            let (part, behind) = rest.split_once(quote)?;
            text.push_str(part);
            match behind.strip_prefix(quote) {
                Some(behind) => {
                    text.push(quote);
                    rest = behind;
                }
                None => {
                    self.rest = behind;
                    return Some(text);
                }
            }
        }
    }
}

fn is_comment(text: &str) -> bool {
    text.starts_with("--") || text.starts_with("/*")
}

/// What follows the comment at the start of `text`. As in SQL, comments nest.
fn behind_comment(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    let mut rest = text;
    loop {
        let at = rest.find(['*', '/'])?;
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix("/*") {
            depth += 1;
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = behind;
        } else {
            rest = &rest[1..];
        }
        if depth == 0 {
            return Some(rest);
        }
    }
}
