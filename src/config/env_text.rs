//! The text of an `.env`: its variables, and a change of one list that touches nothing else.

use std::{collections::BTreeSet, io};

use super::settings::{ALLOWED_TENANT_IDS, ConfigError, REVOKED_KEY_IDS, Variables, entries};
use crate::{
    ids::{KeyId, TenantId},
    text_file::TextFileError,
};

/// A variable that contains a list.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The variable's name.
    pub variable: &'static str,
    /// The usual form of an entry; `None` for what cannot be an entry.
    parse: fn(&str) -> Option<String>,
}

impl List {
    /// The allow-list.
    pub const TENANTS: Self = Self {
        variable: ALLOWED_TENANT_IDS,
        parse: |entry| entry.parse::<TenantId>().ok().map(|id| id.to_string()),
    };

    /// The revoked signing keys.
    pub const KEYS: Self = Self {
        variable: REVOKED_KEY_IDS,
        parse: |entry| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+/=.".contains(&byte);
            let is_key_id = KeyId::parse(entry).is_some() && entry.bytes().all(is_plain);
            is_key_id.then(|| entry.to_owned())
        },
    };

    /// Whether an entry can be written to the list.
    pub fn accepts(self, entry: &str) -> bool {
        (self.parse)(entry).is_some()
    }

    /// The text of an `.env` with these entries in the last assignment of the list, or in a new line.
    /// The result is parsed again, to ensure that only the list differs.
    ///
    /// # Errors
    ///
    /// The number of the line that cannot be changed.
    pub(super) fn edit(self, text: &str, wanted: &BTreeSet<String>) -> Result<String, usize> {
        let variable = self.variable;
        let lines = text.split_inclusive('\n').map(str::to_owned);
        let mut lines: Vec<_> = lines.collect();
        let index = lines.iter().rposition(|line| self.is_assigned_in(line));
        let number = index.unwrap_or(lines.len()) + 1;
        let edited = if let Some(line) = index.and_then(|index| lines.get_mut(index)) {
            *line = self.edit_line(line, wanted).ok_or(number)?;
            lines.concat()
        } else {
            let is_complete = text.is_empty() || text.ends_with('\n');
            let line_break = if is_complete { "" } else { "\n" };
            let list = join(wanted);
            format!("{text}{line_break}{variable}={list}\n")
        };
        let mut expected = parse(text).map_err(|_| number)?;
        let list = expected.entry(variable.to_owned()).or_default();
        let mut actual = parse(&edited).map_err(|_| number)?;
        let written = actual.insert(variable.to_owned(), list.clone());
        let written = written.unwrap_or_default();
        let written: Option<BTreeSet<_>> = entries(&written).map(self.parse).collect();
        if written.as_ref() == Some(wanted) && actual == expected {
            Ok(edited)
        } else {
            Err(number)
        }
    }

    fn is_assigned_in(self, line: &str) -> bool {
        let name = line.trim_start();
        let name = name.strip_prefix("export ").unwrap_or(name).trim_start();
        let rest = name.strip_prefix(self.variable);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    }

    /// Replaces the list in a line. Entries that stay keep their order. `None` if the value is not a
    /// list of entries, without quotes or in one pair of quotes.
    fn edit_line(self, line: &str, wanted: &BTreeSet<String>) -> Option<String> {
        let (name, value) = line.split_once('=')?;
        let (value, line_end) = value.split_at(value.trim_end().len());
        let quote = value.chars().next().filter(|&c| matches!(c, '"' | '\''));
        let list = match quote {
            Some(quote) => value.strip_prefix(quote)?.strip_suffix(quote)?,
            None => value,
        };
        let present: Vec<_> = entries(list).map(self.parse).collect::<Option<_>>()?;
        let kept = present.iter().filter(|&entry| wanted.contains(entry));
        let added = wanted.iter().filter(|entry| !present.contains(entry));
        let list = join(kept.chain(added));
        let quote = quote.map(String::from).unwrap_or_default();
        Some(format!("{name}={quote}{list}{quote}{line_end}"))
    }
}

/// Parses the text of an `.env`. A byte order mark is skipped.
pub fn parse(text: &str) -> Result<Variables, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    parse_lines(text).map_err(|error| match error {
        // dotenvy does not return the number of the line.
        dotenvy::Error::LineParse(..) => ConfigError::Line(first_invalid_line(text)),
        dotenvy::Error::Io(error) => TextFileError::Io(error).into(),
        error => TextFileError::Io(io::Error::other(error)).into(),
    })
}

fn parse_lines(text: &str) -> Result<Variables, dotenvy::Error> {
    dotenvy::from_read_iter(text.as_bytes()).collect()
}

/// The number of the line, from 1, that starts an assignment which cannot be parsed. A quoted value
/// may span several lines.
fn first_invalid_line(text: &str) -> usize {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let mut start = 0;
    while let Some(rest) = lines.get(start..).filter(|rest| !rest.is_empty()) {
        let parses = |length: &usize| parse_lines(&rest[..*length].concat()).is_ok();
        match (1..=rest.len()).find(parses) {
            Some(length) => start += length,
            None => break,
        }
    }
    start + 1
}

fn join<'a>(entries: impl IntoIterator<Item = &'a String>) -> String {
    let entries = entries.into_iter().map(String::as_str);
    entries.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-4111-8111-111111111111";
    const B: &str = "22222222-2222-4222-8222-222222222222";
    const C: &str = "33333333-3333-4333-8333-33333333333a";

    fn set(entries: &[&str]) -> BTreeSet<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    #[test]
    fn only_the_list_is_changed() {
        for (old, new) in [
            (String::new(), format!("ALLOWED_TENANT_IDS={B},{C}\n")),
            (
                "X=1".to_owned(),
                format!("X=1\nALLOWED_TENANT_IDS={B},{C}\n"),
            ),
            (
                format!("ALLOWED_TENANT_IDS={C},{A}\nX=1"),
                format!("ALLOWED_TENANT_IDS={C},{B}\nX=1"),
            ),
            (
                format!("ALLOWED_TENANT_IDS={A},\r\nX=1\r\n"),
                format!("ALLOWED_TENANT_IDS={B},{C}\r\nX=1\r\n"),
            ),
            (
                format!("export ALLOWED_TENANT_IDS=\"{A}, {}\"\n", C.to_uppercase()),
                format!("export ALLOWED_TENANT_IDS=\"{C},{B}\"\n"),
            ),
            (
                format!("ALLOWED_TENANT_IDS='{A},{B},{B}'\n"),
                format!("ALLOWED_TENANT_IDS='{B},{B},{C}'\n"),
            ),
            (
                "# ALLOWED_TENANT_IDS=\nX=1".to_owned(),
                format!("# ALLOWED_TENANT_IDS=\nX=1\nALLOWED_TENANT_IDS={B},{C}\n"),
            ),
            (
                format!("ALLOWED_TENANT_IDS={A}\n# the last one counts\nALLOWED_TENANT_IDS={C}\n"),
                format!(
                    "ALLOWED_TENANT_IDS={A}\n# the last one counts\nALLOWED_TENANT_IDS={C},{B}\n"
                ),
            ),
        ] {
            let edited = List::TENANTS.edit(&old, &set(&[B, C]));
            assert_eq!(edited, Ok(new), "{old:?}");
        }
    }

    #[test]
    fn unsupported_syntax_is_rejected_with_its_line() {
        for (text, line) in [
            (format!("T={B}\nALLOWED_TENANT_IDS={A},$T\n"), 2),
            (format!("ALLOWED_TENANT_IDS=\"{A},\n{B}\"\n"), 1),
            (format!("X=1\n\nALLOWED_TENANT_IDS={A} # ours\n"), 3),
            (format!("ALLOWED_TENANT_IDS=\"{A}\",{B}\n"), 1),
            (
                format!("ALLOWED_TENANT_IDS={A},{B}\nX=${{ALLOWED_TENANT_IDS}}\n"),
                1,
            ),
        ] {
            let edited = List::TENANTS.edit(&text, &set(&[A]));
            assert_eq!(edited, Err(line), "{text}");
        }
    }

    #[test]
    fn only_entries_that_need_no_quotes_are_accepted() {
        let longest = "k".repeat(128);
        for key_id in ["abc", "-_+/=.", "A1", &longest] {
            assert!(List::KEYS.accepts(key_id), "{key_id}");
        }
        for other in ["", "a b", "a,b", "a\"b", "$A", "a#b", "é", &"k".repeat(129)] {
            assert!(!List::KEYS.accepts(other), "{other}");
        }
        assert!(List::TENANTS.accepts(A));
        assert!(!List::TENANTS.accepts("contoso.example"));
    }
}
