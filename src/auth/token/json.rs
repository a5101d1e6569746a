//! The members of a JSON object, each name once.
//!
//! Two members of one name, or of names that differ only in case, are refused: of such
//! twins one reader takes the first and another the last, and a token must mean one thing.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::Value;

use crate::auth::error::InvalidToken;

/// A JSON object whose member names are unique whatever their case. They are few, and most are looked up
/// once, so they are kept as they came.
pub(crate) struct Members(Vec<(String, Value)>);

/// About how many members the claims of a token have.
const USUAL_MEMBERS: usize = 24;

/// Serde's errors are texts; this one is told apart by its text and never shown.
const DUPLICATE: &str = "duplicate member";

impl Members {
    /// Parses a JSON object and nothing after it.
    ///
    /// # Errors
    ///
    /// [`InvalidToken::DuplicateMember`], or [`InvalidToken::Malformed`] for anything else.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, InvalidToken> {
        serde_json::from_slice(json).map_err(|error| {
            if error.to_string().starts_with(DUPLICATE) {
                InvalidToken::DuplicateMember
            } else {
                InvalidToken::Malformed
            }
        })
    }

    /// What keeps a text from being such an object, in words; `None` if it is one.
    pub(crate) fn problem(json: &[u8]) -> Option<String> {
        serde_json::from_slice::<Self>(json)
            .err()
            .map(|error| error.to_string())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The member if it is a string.
    pub(crate) fn string(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// The member if it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.value(name)?.as_f64()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueNames)
    }
}

struct UniqueNames;

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        while let Some(member) = map.next_entry::<String, Value>()? {
            members.push(member);
        }
        let mut names: Vec<_> = members.iter().map(|(name, _)| fold_case(name)).collect();
        // Not compared each with each: a token has room for thousands of names.
        names.sort_unstable();
        if let Some([twin, _]) = names.array_windows().find(|[one, next]| one == next) {
            return Err(A::Error::custom(format_args!("{DUPLICATE} {twin:?}")));
        }
        drop(names);
        Ok(Members(members))
    }
}

/// The name without regard to case; Entra's are in lower case already.
fn fold_case(name: &str) -> Cow<'_, str> {
    if name
        .bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
    {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_lowercase())
    }
}
