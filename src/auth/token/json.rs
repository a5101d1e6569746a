//! A JSON object in which every member name is unique.
//!
//! Two members of the same name, or of names that differ only in case, are rejected: some readers
//! take the first and others the last, and a token must mean the same to all of them.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::Value;

use crate::auth::error::{InvalidToken, MalformedToken, Unverified};

/// A JSON object with unique member names. A token has few members, so a list is fast enough.
pub(crate) struct Members(Vec<(String, Value)>);

/// The usual number of claims in a token.
const USUAL_MEMBERS: usize = 24;

/// Serde reports errors as text. This prefix marks a duplicate; the member's name follows.
const DUPLICATE: &str = "duplicate member: ";

impl Members {
    /// Parses a JSON object. Rejects any text after it. `segment` is its name in errors.
    pub(super) fn parse(json: &[u8], segment: &'static str) -> Result<Self, InvalidToken> {
        serde_json::from_slice(json).map_err(|error| {
            let problem = error.to_string();
            if let Some(name) = problem.strip_prefix(DUPLICATE) {
                let name = name.rsplit_once(" at line ").map_or(name, |(name, _)| name);
                let name = Unverified::text(name);
                return InvalidToken::DuplicateMember { segment, name };
            }
            let problem = Unverified::text(&problem);
            InvalidToken::Malformed(MalformedToken::Json { segment, problem })
        })
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        let mut members = self.0.iter();
        members.find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The member if it is a string.
    pub(crate) fn string(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// The member if it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.value(name)?.as_f64()
    }

    /// The member for an error: its JSON, or "missing".
    pub(crate) fn evidence(&self, name: &str) -> Unverified {
        Unverified::value(self.value(name))
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
        // Sorted, because comparing all pairs of names takes quadratic time, and a token can have
        // thousands of names.
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[one, next]| one == next) {
            return Err(A::Error::custom(format_args!("{DUPLICATE}{name:?}")));
        }
        drop(names);
        Ok(Members(members))
    }
}

/// The name in lower case. Entra's names already are.
fn fold_case(name: &str) -> Cow<'_, str> {
    let is_lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if name.bytes().all(is_lower) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_lowercase())
    }
}
