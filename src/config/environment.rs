//! Settings from the environment: `PGWEIR_<SETTING>` in upper case, over what the file says.
//!
//! A name that is no setting but looks like one is a mistake, because a misspelt limit that is silently not there is
//! worse than no start. Names that others put there (Kubernetes for a service called pgweir, say) are only mentioned.

use super::container::MARK;
use super::draft::Draft;
use super::problem::{Note, Place, Problem};
use super::table::{SETTINGS, find};
use super::value::Raw;
use super::variables::{Named, named};

/// What all our variables begin with.
pub const PREFIX: &str = "PGWEIR_";

/// Names further apart than this many letters are not misspellings of each other; short names less still.
pub const TYPO_MAX: usize = 2;

/// The variables of this process that begin with [`PREFIX`], or that may say something where there is no file
/// ([`super::variables()`]). Bytes that are not UTF-8 are replaced, which no setting but text would survive.
pub fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with(PREFIX) || named(name) != Named::Foreign)
        .collect()
}

/// Takes those of the variables that are settings.
pub fn read(variables: &[(String, String)], draft: &mut Draft) {
    for (variable, value) in variables.iter().filter(|(name, _)| name != MARK) {
        let Some(name) = variable.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else {
            continue;
        };
        let place = Place::whole(variable);
        if find(&name).is_some() {
            draft.setting(&name, &Raw::free(value), &place);
        } else if looks_like_a_setting(&name) {
            let hint = nearest(&name)
                .map(|near| format!("did you mean {PREFIX}{}?", near.to_ascii_uppercase()));
            let problem = Problem::new(&place, format!("unknown parameter: {name}"));
            draft.problem(Problem { hint, ..problem });
        } else {
            draft.note(Note::info(&place, format!("{variable} is not a setting")));
        }
    }
}

/// The setting that `name` is most likely a misspelling of.
pub fn nearest(name: &str) -> Option<&'static str> {
    let far = (name.len() / 4).clamp(1, TYPO_MAX);
    let distances = SETTINGS
        .iter()
        .map(|row| (distance(row.name, name), row.name));
    distances
        .filter(|&(distance, _)| distance <= far)
        .min()
        .map(|(_, near)| near)
}

/// Whether a name begins as the names of settings do, or is nearly one.
fn looks_like_a_setting(name: &str) -> bool {
    let first_word = name.split('_').next().unwrap_or_default();
    let begins_alike = name.contains('_')
        && SETTINGS
            .iter()
            .any(|row| row.name.contains('_') && row.name.split('_').next() == Some(first_word));
    begins_alike || nearest(name).is_some()
}

/// The edit distance of two names, or a number over [`TYPO_MAX`] when their lengths alone say as much.
pub fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len().abs_diff(other.len()) > TYPO_MAX {
        return TYPO_MAX + 1;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn misspellings() {
        assert_eq!(nearest("poolmode"), Some("pool_mode"));
        assert_eq!(nearest("max_client_con"), Some("max_client_conn"));
        assert_eq!(nearest("users"), Some("user"));
        assert_eq!(nearest("configuration"), None);
        assert_eq!(distance("kitten", "kitte"), 1);
        assert_eq!(distance("abc", "cba"), 2);
    }

    #[test]
    fn names_that_look_like_settings() {
        for name in [
            "pool_size",
            "max_connections",
            "log_level",
            "worker",
            "client_cert",
        ] {
            assert!(looks_like_a_setting(name), "{name}");
        }
        for name in [
            "config",
            "port",
            "service_host",
            "port_6432_tcp_addr",
            "version",
            "home",
            "peer",
        ] {
            assert!(!looks_like_a_setting(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn distances_are_symmetric(one in "[ab]{0,6}", other in "[ab]{0,6}") {
            prop_assert_eq!(distance(&one, &other), distance(&other, &one));
            prop_assert_eq!(distance(&one, &other) == 0, one == other);
        }
    }
}
