//! A search filter: its text (RFC 4515) to the bytes of a search request.
//!
//! Also understands, as OpenLDAP does, a single condition without parentheses.

use super::ber;

/// How deep parentheses may be nested.
const DEPTH_MAX: usize = 32;

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUALITY: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER: u8 = 0xa5;
const LESS: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;
const EXTENSIBLE: u8 = 0xa9;

/// Parts of a substrings condition.
const INITIAL: u8 = 0x80;
const ANY: u8 = 0x81;
const FINAL: u8 = 0x82;

/// Parts of an extensible condition.
const RULE: u8 = 0x81;
const TYPE: u8 = 0x82;
const VALUE: u8 = 0x83;
const DN_ATTRIBUTES: u8 = 0x84;

/// Escapes a value, so that it stands for itself and nothing else in a filter.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            // Blanks, because those at the ends are not looked at in some places.
            '\\' | '*' | '(' | ')' | '\0' | ' ' => escaped.push_str(&format!("\\{:02x}", c as u32)),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// The bytes of this filter; `None` if it is none.
pub fn encode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let mut out = Vec::new();
    let rest = match text.starts_with('(') {
        true => filter(text, &mut out, DEPTH_MAX)?,
        false => {
            item(text, &mut out)?;
            ""
        }
    };
    rest.trim().is_empty().then_some(out)
}

/// `( … )`; gives what follows.
fn filter<'a>(text: &'a str, out: &mut Vec<u8>, depth: usize) -> Option<&'a str> {
    let depth = depth.checked_sub(1)?;
    let inside = text.strip_prefix('(')?;
    let (tag, rest) = match inside.as_bytes().first()? {
        b'&' => (AND, &inside[1..]),
        b'|' => (OR, &inside[1..]),
        b'!' => (NOT, &inside[1..]),
        _ => {
            let (condition, rest) = inside.split_at(inside.find(['(', ')'])?);
            item(condition, out)?;
            return rest.strip_prefix(')');
        }
    };
    let mut content = Vec::new();
    let mut rest = rest.trim_start();
    let mut count = 0;
    while rest.starts_with('(') {
        rest = filter(rest, &mut content, depth)?.trim_start();
        count += 1;
    }
    if count == 0 || tag == NOT && count > 1 {
        return None;
    }
    ber::put(out, tag, &content);
    rest.strip_prefix(')')
}

/// One condition, without its parentheses.
fn item(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (left, right) = text.split_once('=')?;
    if right.contains(['(', ')', '\0']) {
        return None;
    }
    let (tag, attribute) = match left.as_bytes().last()? {
        b'~' => (APPROXIMATE, &left[..left.len() - 1]),
        b'>' => (GREATER, &left[..left.len() - 1]),
        b'<' => (LESS, &left[..left.len() - 1]),
        b':' => return extensible(&left[..left.len() - 1], right, out),
        _ if right == "*" => {
            ber::put(out, PRESENT, description(left)?.as_bytes());
            return Some(());
        }
        _ if right.contains('*') => return substrings(left, right, out),
        _ => (EQUALITY, left),
    };
    let mut content = Vec::new();
    ber::put(
        &mut content,
        ber::OCTETS,
        description(attribute)?.as_bytes(),
    );
    ber::put(&mut content, ber::OCTETS, &value(right)?);
    ber::put(out, tag, &content);
    Some(())
}

fn substrings(attribute: &str, pattern: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut parts = Vec::new();
    let last = pattern.matches('*').count();
    for (at, part) in pattern.split('*').enumerate() {
        let tag = match at {
            0 => INITIAL,
            at if at == last => FINAL,
            _ => ANY,
        };
        if !part.is_empty() {
            ber::put(&mut parts, tag, &value(part)?);
        }
    }
    if parts.is_empty() {
        return None;
    }
    let mut content = Vec::new();
    ber::put(
        &mut content,
        ber::OCTETS,
        description(attribute)?.as_bytes(),
    );
    ber::put(&mut content, ber::SEQUENCE, &parts);
    ber::put(out, SUBSTRINGS, &content);
    Some(())
}

/// `attribute:dn:rule:=value`, of which attribute, `dn` and rule may be missing, though not both attribute and rule.
fn extensible(left: &str, right: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut parts = left.split(':');
    let attribute = parts.next()?;
    let mut rest: Vec<&str> = parts.collect();
    let dn = rest.first() == Some(&"dn");
    if dn {
        rest.remove(0);
    }
    let rule = match rest[..] {
        [] => None,
        [rule] => Some(description(rule)?),
        _ => return None,
    };
    if attribute.is_empty() && rule.is_none() || right.contains('*') {
        return None;
    }
    let mut content = Vec::new();
    if let Some(rule) = rule {
        ber::put(&mut content, RULE, rule.as_bytes());
    }
    if !attribute.is_empty() {
        ber::put(&mut content, TYPE, description(attribute)?.as_bytes());
    }
    ber::put(&mut content, VALUE, &value(right)?);
    if dn {
        ber::put(&mut content, DN_ATTRIBUTES, &[0xff]);
    }
    ber::put(out, EXTENSIBLE, &content);
    Some(())
}

/// An attribute's name, with options.
fn description(text: &str) -> Option<&str> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ';' | '_');
    (!text.is_empty() && text.chars().all(fits)).then_some(text)
}

/// A value without its escapes.
fn value(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                // Two digits of four bits.
                (high << 4 | low) as u8
            }
            _ => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[u8]) {
        assert_eq!(encode(text).as_deref(), Some(expected), "{text}");
    }

    #[test]
    fn conditions() {
        check("(uid=ann)", b"\xa3\x0a\x04\x03uid\x04\x03ann");
        check("uid=ann", b"\xa3\x0a\x04\x03uid\x04\x03ann");
        check("(uid=a\\2anN)", b"\xa3\x0b\x04\x03uid\x04\x04a*nN");
        check("(a>=1)", b"\xa5\x06\x04\x01a\x04\x011");
        check("(a<=1)", b"\xa6\x06\x04\x01a\x04\x011");
        check("(a~=1)", b"\xa8\x06\x04\x01a\x04\x011");
        check("(a=*)", b"\x87\x01a");
        check("(a=)", b"\xa3\x05\x04\x01a\x04\x00");
        check("(a=b*)", b"\xa4\x08\x04\x01a\x30\x03\x80\x01b");
        check("(a=*b*c*)", b"\xa4\x0b\x04\x01a\x30\x06\x81\x01b\x81\x01c");
        check("(a=x*y)", b"\xa4\x0b\x04\x01a\x30\x06\x80\x01x\x82\x01y");
        check("(m:1.2:=7)", b"\xa9\x0b\x81\x031.2\x82\x01m\x83\x017");
        check("(m:dn:=7)", b"\xa9\x09\x82\x01m\x83\x017\x84\x01\xff");
    }

    #[test]
    fn combinations() {
        check(
            "(&(a=1)(b=2))",
            b"\xa0\x10\xa3\x06\x04\x01a\x04\x011\xa3\x06\x04\x01b\x04\x012",
        );
        check(
            "(| (a=1) (b=2) )",
            b"\xa1\x10\xa3\x06\x04\x01a\x04\x011\xa3\x06\x04\x01b\x04\x012",
        );
        check("(!(a=1))", b"\xa2\x08\xa3\x06\x04\x01a\x04\x011");
    }

    #[test]
    fn no_filters() {
        for text in [
            "",
            "()",
            "(uid)",
            "(uid=a",
            "uid=a)",
            "(uid=a))",
            "(uid=a)(b=c)",
            "(&)",
            "(!(a=1)(b=2))",
            "(=x)",
            "(a b=x)",
            "(a=\\)",
            "(a=\\4)",
            "(a=\\zz)",
            "(a=**)",
            "(:=x)",
            "(a=(b))",
            "(&(a=1)",
            "(a=1)x",
        ] {
            assert_eq!(encode(text), None, "{text}");
        }
        let deep = |n: usize| format!("{}(a=1){}", "(!".repeat(n), ")".repeat(n));
        assert!(encode(&deep(DEPTH_MAX - 1)).is_some());
        assert!(encode(&deep(DEPTH_MAX)).is_none());
        assert!(encode(&deep(100_000)).is_none());
    }

    proptest! {
        #[test]
        fn an_escaped_value_stands_for_itself(value in "\\PC*") {
            let mut content = vec![];
            ber::put(&mut content, ber::OCTETS, b"uid");
            ber::put(&mut content, ber::OCTETS, value.as_bytes());
            let mut expected = vec![];
            ber::put(&mut expected, EQUALITY, &content);
            prop_assert_eq!(encode(&format!("(uid={})", escape(&value))), Some(expected));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[()&|!=~<>:*\\\\a-c0-9 ]{0,40}") {
            let _ = encode(&text);
        }
    }
}
