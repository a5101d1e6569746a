//! The members of a JSON object that the service reads.
//!
//! Two members of the same name, or of names that differ only in case, are rejected if the service
//! reads one of them: some readers take the first and others the last, and a token must mean the
//! same to all of them. The content of all other members is skipped, because tenants choose what else
//! their tokens contain.
//!
//! A value is parsed when it is read. The cost of an unverified token is that of finding its members,
//! whatever it contains.

use std::{borrow::Cow, fmt, ops::Range};

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

/// The longest member name to compare, in bytes. A longer one does not fold to any of the names.
const MAX_NAME_BYTES: usize = 64;

impl Members {
    /// Finds the members of a JSON object. Rejects any text after it. `segment` is its name in errors.
    pub(super) fn parse(
        json: Vec<u8>,
        names: Names,
        segment: &'static str,
    ) -> Result<Self, InvalidToken> {
        let mut deserializer = serde_json::Deserializer::from_slice(&json);
        let found = Reader { names }.deserialize(&mut deserializer);
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

/// Finds the values of the members to read.
struct Reader {
    names: Names,
}

/// The values of the members to read, in the order of their names.
type Found<'de> = Vec<Option<&'de RawValue>>;

/// The name of a member that occurs twice.
struct Duplicate(&'static str);

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Result<Found<'de>, Duplicate>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Result<Found<'de>, Duplicate>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let names = self.names;
        let mut values: Found<'de> = vec![None; names.len()];
        let mut occurrences = vec![0_u32; names.len()];
        let mut duplicate = None;
        while let Some(name) = map.next_key_seed(NameReader { names })? {
            let Some(Name { index, is_exact }) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            occurrences[index] += 1;
            if occurrences[index] > 1 {
                duplicate = Some(Duplicate(names[index]));
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

/// A member's name that is one of the names to read, or differs from it only in case.
struct Name {
    index: usize,
    is_exact: bool,
}

/// Reads a member's name. Returns `None` if the member is not read.
struct NameReader {
    names: Names,
}

impl<'de> DeserializeSeed<'de> for NameReader {
    type Value = Option<Name>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        // As bytes, because a name that is not read need not be valid Unicode.
        json.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameReader {
    type Value = Option<Name>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        let mut names = self.names.iter();
        let index = if name.is_ascii() {
            names.position(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        } else if name.len() <= MAX_NAME_BYTES {
            // Some readers fold Unicode too: the Kelvin sign to `k`, the long s to `s`.
            let folded = String::from_utf8_lossy(name).to_uppercase().to_lowercase();
            names.position(|&known| folded == known)
        } else {
            None
        };
        Ok(index.map(|index| Name {
            index,
            is_exact: name == self.names[index].as_bytes(),
        }))
    }
}
