//! The members of a JSON object that the service reads.
//!
//! Two members of the same name, or of names that differ only in case, are rejected if the service
//! reads one of them: some readers take the first and others the last, and a token must mean the
//! same to all of them. The content of all other members is skipped, because tenants choose what else
//! their tokens contain.
//!
//! A value is parsed when it is read. An unverified token costs the time to find its members, and not
//! the time to parse all that it contains.

use std::{borrow::Cow, fmt, mem, ops::Range};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::auth::error::{InvalidToken, MalformedToken, Unverified};

/// The names of the members to read. A name is ASCII in lower case.
pub(crate) type Names = &'static [&'static str];

/// The members of a JSON object that have one of the given names.
pub(crate) struct Members {
    json: Vec<u8>,
    names: Names,
    /// Where the value of each of `names` is in `json`.
    values: Vec<Option<Range<usize>>>,
}

/// The most values in a segment, counted as commas and opening brackets, and the most escapes, counted
/// as backslashes. They bound the time that an unverified token can cost. Entra's tokens have at most
/// a few hundred values, and names in other scripts may consist of escapes.
const MAX_VALUES: usize = 1000;
const MAX_ESCAPES: usize = 2048;

impl Members {
    /// Finds the members of a JSON object. Rejects any text after it. `segment` is its name in errors.
    pub(super) fn parse(
        json: Vec<u8>,
        names: Names,
        segment: &'static str,
    ) -> Result<Self, InvalidToken> {
        let values = count(&json, |byte| matches!(byte, b',' | b'[' | b'{'));
        let escapes = count(&json, |byte| byte == b'\\');
        if values > MAX_VALUES || escapes > MAX_ESCAPES {
            let problem = MalformedToken::TooManyValues(segment);
            return Err(InvalidToken::Malformed(problem));
        }
        let prefixes = names.iter().map(|name| prefix(name.as_bytes())).collect();
        let reader = Reader { names, prefixes };
        let mut deserializer = serde_json::Deserializer::from_slice(&json);
        let found = reader.deserialize(&mut deserializer);
        match found.and_then(|found| deserializer.end().map(|()| found)) {
            Ok(Ok(found)) => {
                let start = json.as_ptr().addr();
                let range = |value: &RawValue| {
                    let offset = value.get().as_ptr().addr() - start;
                    offset..offset + value.get().len()
                };
                let values = found.into_iter();
                let values = values.map(|value| value.map(range)).collect();
                Ok(Self {
                    json,
                    names,
                    values,
                })
            }
            Ok(Err(Duplicate(name))) => Err(InvalidToken::DuplicateMember { segment, name }),
            Err(error) => {
                let problem = Unverified::text(&error.to_string());
                let problem = MalformedToken::Json { segment, problem };
                Err(InvalidToken::Malformed(problem))
            }
        }
    }

    /// Whether there is a member with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The member, if it has this type.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.text(name)?).ok()
    }

    /// The member, if it is a string.
    pub(crate) fn string(&self, name: &str) -> Option<Cow<'_, str>> {
        let json = self.text(name)?;
        // A string without escapes is not copied.
        let borrowed = serde_json::from_str(json).map(Cow::Borrowed);
        let string = borrowed.or_else(|_| serde_json::from_str(json).map(Cow::Owned));
        string.ok()
    }

    /// The member for an error: its JSON, or "missing".
    pub(crate) fn evidence(&self, name: &str) -> Unverified {
        Unverified::text(self.text(name).unwrap_or("missing"))
    }

    /// The JSON of the member. Panics in tests if the name is not one of those that are read.
    fn text(&self, name: &str) -> Option<&str> {
        let index = self.names.iter().position(|&known| known == name);
        debug_assert!(index.is_some(), "{name} is not in the list of names");
        let range = self.values.get(index?)?.clone()?;
        str::from_utf8(self.json.get(range)?).ok()
    }
}

/// Counts bytes, also those in strings. In parts whose count fits into a byte, so that the compiler can
/// use vector instructions.
fn count(json: &[u8], is_counted: impl Fn(u8) -> bool) -> usize {
    let in_part = |part: &[u8]| {
        part.iter()
            .map(|&byte| u8::from(is_counted(byte)))
            .sum::<u8>()
    };
    let parts = json.chunks(usize::from(u8::MAX));
    parts.map(|part| usize::from(in_part(part))).sum()
}

/// The beginning of a name in lower case. Comparing it as a number rules out most names at once.
fn prefix(name: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    for (to, from) in prefix.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    u64::from_le_bytes(prefix)
}

/// Finds the values of the members to read.
struct Reader {
    names: Names,
    /// The prefix of each of `names`.
    prefixes: Vec<u64>,
}

/// The values of the members to read, in the order of their names.
type Found<'de> = Vec<Option<&'de RawValue>>;

/// The name of a member that occurs twice.
struct Duplicate(&'static str);

/// A member's name that is one of the names to read, or differs from it only in case.
struct Name {
    index: usize,
    is_exact: bool,
}

impl Reader {
    fn find(&self, name: &[u8]) -> Option<usize> {
        if name.is_ascii() {
            let prefix = prefix(name);
            let mut names = self.prefixes.iter().zip(self.names);
            return names.position(|(&known_prefix, known)| {
                known_prefix == prefix && name.eq_ignore_ascii_case(known.as_bytes())
            });
        }
        // Some readers fold these letters to ASCII too.
        let mut folded = String::new();
        for letter in str::from_utf8(name).ok()?.chars() {
            folded.push(match letter {
                '\u{212a}' => 'k',
                '\u{17f}' => 's',
                '\u{130}' | '\u{131}' => 'i',
                letter if letter.is_ascii() => letter.to_ascii_lowercase(),
                _ => return None,
            });
        }
        self.names.iter().position(|&known| folded == known)
    }
}

impl<'de> DeserializeSeed<'de> for &Reader {
    type Value = Result<Found<'de>, Duplicate>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Reader {
    type Value = Result<Found<'de>, Duplicate>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: Found<'de> = vec![None; self.names.len()];
        let mut is_seen = vec![false; self.names.len()];
        let mut duplicate = None;
        while let Some(name) = map.next_key_seed(NameReader(self))? {
            let Some(Name { index, is_exact }) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if mem::replace(&mut is_seen[index], true) {
                duplicate = Some(Duplicate(self.names[index]));
            }
            if is_exact {
                values[index] = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(duplicate.map_or(Ok(values), Err))
    }
}

/// Reads a member's name. Returns `None` if the member is not read.
struct NameReader<'a>(&'a Reader);

impl<'de> DeserializeSeed<'de> for NameReader<'_> {
    type Value = Option<Name>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        // As bytes, because a name that is not read need not be valid Unicode.
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameReader<'_> {
    type Value = Option<Name>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        let Self(reader) = self;
        Ok(reader.find(name).map(|index| Name {
            index,
            is_exact: name == reader.names[index].as_bytes(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_values_and_escapes_are_exact() {
        let is_accepted = |json: String| Members::parse(json.into_bytes(), &[], "payload").is_ok();
        // The brackets count as two values.
        let values = |count: usize| format!("{{\"x\":[0{}]}}", ",0".repeat(count - 2));
        assert!(is_accepted(values(MAX_VALUES)));
        assert!(!is_accepted(values(MAX_VALUES + 1)));
        let escapes = |count: usize| format!("{{\"x\":\"{}\"}}", "\\n".repeat(count));
        assert!(is_accepted(escapes(MAX_ESCAPES)));
        assert!(!is_accepted(escapes(MAX_ESCAPES + 1)));
    }

    #[test]
    fn names_with_a_common_prefix_are_not_duplicates() {
        let json = r#"{"preferred_username":"ada","preferred_language":"de"}"#.into();
        let members = Members::parse(json, &["preferred_username"], "payload");
        assert!(members.is_ok(), "read as a duplicate");
    }

    #[test]
    fn letters_that_some_readers_fold_are_duplicates() {
        for (names, other) in [
            (&["kid"], "\u{212a}id"),
            (&["scp"], "\u{17f}cp"),
            (&["tid"], "t\u{130}d"),
            (&["tid"], "t\u{131}d"),
        ] {
            let (segment, name) = ("payload", names[0]);
            let json = format!(r#"{{"{name}":"a","{other}":"b"}}"#);
            let error = Members::parse(json.into(), names, segment).err();
            let expected = InvalidToken::DuplicateMember { segment, name };
            assert_eq!(error, Some(expected), "{other}");
        }
    }
}
