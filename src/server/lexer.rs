//! As much of SQL's lexical structure as it takes to find one statement in a text of several.
//!
//! Pure. Nothing is ever decided by this alone: whatever is cut out here is sent to PostgreSQL in a way that allows one statement
//! only, and is checked by its completion tag.

/// Bytes of a name that PostgreSQL keeps.
const NAME_LEN_MAX: usize = 63;

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword or a name without quotes.
    Word(&'a [u8]),
    /// What stands between the double quotes.
    Quoted(&'a [u8]),
    Semicolon,
    Other,
}

/// Cuts a text into tokens; comments and blanks are dropped.
struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// A backslash escapes in every literal: `standard_conforming_strings` is off.
    backslashes: bool,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a [u8], backslashes: bool) -> Lexer<'a> {
        Lexer {
            text,
            at: 0,
            backslashes,
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Takes bytes as long as they fit.
    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().position(|byte| !fits(*byte));
        let len = len.unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(is_blank);
            if self.rest().starts_with(b"--") {
                self.take_while(|byte| !matches!(byte, b'\n' | b'\r'));
            } else if self.rest().starts_with(b"/*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.text.len() {
            if self.rest().starts_with(b"/*") {
                (depth, self.at) = (depth + 1, self.at + 2);
            } else if self.rest().starts_with(b"*/") {
                (depth, self.at) = (depth - 1, self.at + 2);
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// The next token, behind blanks.
    fn token(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = *self.rest().first()?;
        if begins_word(first) {
            return Some(self.word());
        }
        self.at += 1;
        Some(match first {
            b'"' => self.quoted(),
            b'\'' => self.literal(self.backslashes),
            b'$' => self.dollar(),
            b';' => Token::Semicolon,
            _ => Token::Other,
        })
    }

    fn word(&mut self) -> Token<'a> {
        let word = self.take_while(in_word);
        if word.eq_ignore_ascii_case(b"e") && self.rest().first() == Some(&b'\'') {
            self.at += 1;
            return self.literal(true);
        }
        Token::Word(word)
    }

    fn quoted(&mut self) -> Token<'a> {
        let from = self.at;
        loop {
            self.take_while(|byte| byte != b'"');
            let to = self.at;
            self.at = (self.at + 1).min(self.text.len());
            if self.rest().first() != Some(&b'"') {
                return Token::Quoted(&self.text[from..to]);
            }
            self.at += 1;
        }
    }

    /// The rest of a string; behind a line end it may go on in the same manner.
    fn literal(&mut self, backslashes: bool) -> Token<'a> {
        loop {
            match self.rest() {
                [] => return Token::Other,
                [b'\\', ..] if backslashes => self.at = (self.at + 2).min(self.text.len()),
                [b'\'', b'\'', ..] => self.at += 2,
                [b'\'', ..] => {
                    self.at += 1;
                    let blank = self.take_while(is_blank);
                    let goes_on = blank.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
                    if !(goes_on && self.rest().first() == Some(&b'\'')) {
                        return Token::Other;
                    }
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
    }

    /// `$tag$ … $tag$`, or something else that begins with a dollar sign.
    fn dollar(&mut self) -> Token<'a> {
        let from = self.at - 1;
        if self.rest().first().is_some_and(|byte| begins_word(*byte)) {
            self.take_while(|byte| in_word(byte) && byte != b'$');
        }
        if self.rest().first() != Some(&b'$') {
            return Token::Other;
        }
        self.at += 1;
        let tag = &self.text[from..self.at];
        let end = self.rest().windows(tag.len()).position(|part| part == tag);
        self.at = end.map_or(self.text.len(), |end| self.at + end + tag.len());
        Token::Other
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | 0x80..)
}

fn in_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// The statement in `text` that prepares `name` (as the server spells it). `None` if none or more than one does, or if it is one
/// that this file does not understand.
pub fn prepare_of<'a>(text: &'a [u8], name: &[u8], backslashes: bool) -> Option<&'a [u8]> {
    let mut found = None;
    let mut lexer = Lexer::new(text, backslashes);
    loop {
        lexer.skip_blank();
        let from = lexer.at;
        let prepares = is_word(lexer.token()?, b"prepare");
        if prepares && lexer.token().and_then(name_of).is_some_and(|n| n == name) {
            // A second one: which of them it was can't be told.
            if found.is_some() {
                return None;
            }
            found = Some(from);
        }
        let Some(end) = end_of_statement(&mut lexer, from) else {
            return found.map(|from| cut(text, from, backslashes));
        };
        lexer.at = end;
        if lexer.at >= text.len() || is_at_end(&mut lexer) {
            return found.map(|from| cut(text, from, backslashes));
        }
    }
}

fn is_at_end(lexer: &mut Lexer) -> bool {
    lexer.skip_blank();
    lexer.rest().is_empty()
}

/// The place behind the semicolon of the statement that begins at `from`.
fn end_of_statement(lexer: &mut Lexer, from: usize) -> Option<usize> {
    lexer.at = from;
    loop {
        if lexer.token()? == Token::Semicolon {
            return Some(lexer.at);
        }
    }
}

/// The statement that begins at `from`, without its semicolon.
fn cut(text: &[u8], from: usize, backslashes: bool) -> &[u8] {
    let mut lexer = Lexer::new(text, backslashes);
    let end = end_of_statement(&mut lexer, from).map_or(text.len(), |end| end - 1);
    &text[from..end]
}

/// The name that `DEALLOCATE [PREPARE] name` drops, as the server will spell it; `None` for any other text.
pub fn deallocated(text: &[u8]) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(text, false);
    if !is_word(lexer.token()?, b"deallocate") {
        return None;
    }
    let first = lexer.token()?;
    let mut name = first;
    let mut behind = lexer.token();
    if is_word(first, b"prepare") && behind.is_some_and(|token| name_of(token).is_some()) {
        name = behind?;
        behind = lexer.token();
    }
    if is_word(name, b"all") {
        return None;
    }
    while behind == Some(Token::Semicolon) {
        behind = lexer.token();
    }
    if behind.is_some() {
        return None;
    }
    name_of(name)
}

/// True if the text, or what a zero byte ends of it, is an EXECUTE.
pub fn is_execute(text: &[u8]) -> bool {
    let first = Lexer::new(text, false).token();
    first.is_some_and(|token| is_word(token, b"execute"))
}

fn is_word(token: Token, word: &[u8]) -> bool {
    matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))
}

/// A name as the server spells it: folded, unquoted, cut.
fn name_of(token: Token) -> Option<Vec<u8>> {
    let mut name = match token {
        Token::Word(word) => word.to_ascii_lowercase(),
        Token::Quoted(quoted) => {
            let mut name = Vec::with_capacity(quoted.len());
            let mut bytes = quoted.iter();
            while let Some(byte) = bytes.next() {
                name.push(*byte);
                if *byte == b'"' {
                    bytes.next();
                }
            }
            name
        }
        Token::Semicolon | Token::Other => return None,
    };
    if name.len() > NAME_LEN_MAX {
        name.truncate(cut_len(&name));
    }
    Some(name)
}

/// PostgreSQL cuts between characters. In a single-byte encoding this may be a byte too few; then the name is not recognised.
fn cut_len(name: &[u8]) -> usize {
    let mut len = NAME_LEN_MAX;
    while len > NAME_LEN_MAX - 3 && name[len] & 0xc0 == 0x80 {
        len -= 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, name: &str, expected: Option<&str>) {
        let got = prepare_of(text.as_bytes(), name.as_bytes(), false);
        assert_eq!(got.map(|got| std::str::from_utf8(got).unwrap()), expected);
    }

    #[test]
    fn a_statement_alone() {
        check("PREPARE x AS SELECT 1", "x", Some("PREPARE x AS SELECT 1"));
        check(
            " /* a */ prepare X as select 1 ; ",
            "x",
            Some("prepare X as select 1 "),
        );
        check(
            "PREPARE \"Y\"\"\"(int) AS SELECT $1",
            "Y\"",
            Some("PREPARE \"Y\"\"\"(int) AS SELECT $1"),
        );
        check("PREPARE x AS SELECT 1", "y", None);
        check("SELECT 'PREPARE x'", "x", None);
        check("", "x", None);
        check(";;", "x", None);
    }

    #[test]
    fn one_of_several() {
        check(
            "SELECT 1; PREPARE x AS SELECT 2; SELECT 3;",
            "x",
            Some("PREPARE x AS SELECT 2"),
        );
        check(
            "SELECT ';'; PREPARE x AS SELECT $a$;$a$||';'; -- ;\n",
            "x",
            Some("PREPARE x AS SELECT $a$;$a$||';'"),
        );
        check(
            "SELECT E'\\';'; PREPARE x AS SELECT 2",
            "x",
            Some("PREPARE x AS SELECT 2"),
        );
        check("SELECT E'a'\n 'b\\'; PREPARE x AS SELECT 1'", "x", None);
        check(
            "/* /* ; */ PREPARE x AS; */ PREPARE x AS SELECT 2",
            "x",
            Some("PREPARE x AS SELECT 2"),
        );
        check(
            ";; PREPARE x AS SELECT 1",
            "x",
            Some("PREPARE x AS SELECT 1"),
        );
        check("PREPARE x AS SELECT 1; PREPARE x AS SELECT 2", "x", None);
    }

    #[test]
    fn long_names_are_cut() {
        let long = "n".repeat(70);
        let text = format!("PREPARE {long} AS SELECT 1");
        check(&text, &long[..63], Some(&text));
        let wide = format!("{}é{}", "n".repeat(62), "n");
        let text = format!("PREPARE {wide} AS SELECT 1");
        check(&text, &wide[..62], Some(&text));
    }

    #[test]
    fn what_is_deallocated() {
        for (text, name) in [
            ("DEALLOCATE a", Some("a")),
            ("deallocate Prepare \"A b\";;", Some("A b")),
            (" -- c\n DEALLOCATE/**/prepare", Some("prepare")),
            ("DEALLOCATE prepare;", Some("prepare")),
            ("DEALLOCATE ALL", None),
            ("DEALLOCATE PREPARE ALL", None),
            ("DEALLOCATE \"all\"", Some("all")),
            ("DEALLOCATE a; SELECT 1", None),
            ("DEALLOCATE a b", None),
            ("DEALLOCATE", None),
            ("SELECT 1", None),
            ("DEALLOCATE 'a'", None),
        ] {
            let got = deallocated(text.as_bytes());
            assert_eq!(got.as_deref(), name.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[\"'$;a-c/*\\\\ \n-]{0,40}", backslashes: bool) {
            let text = format!("PREPARE x {text}");
            let _ = prepare_of(text.as_bytes(), b"x", backslashes);
            let _ = deallocated(text.as_bytes());
        }

        #[test]
        fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (prepare_of(&text, b"x", true), deallocated(&text));
        }
    }
}
