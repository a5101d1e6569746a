//! Checks that the guide `src/docs/log.md` contains every message and every reason of the log.

use std::{collections::BTreeSet, fs};

use strum::VariantNames;
use tenant_tasks::{
    auth::{AuthError, InvalidToken, NotReady},
    error::ApiError,
    tasks::{StoreError, request::RequestError},
};

use crate::security_guide::{root, rust_files};

const LOG_GUIDE: &str = include_str!("../../src/docs/log.md");

/// An operator finds every message of the log in the guide.
#[test]
fn every_log_message_is_in_the_log_guide() {
    let mut messages = BTreeSet::new();
    for path in rust_files(&root().join("src")) {
        let source = fs::read_to_string(path).unwrap();
        for start in ["tracing::info!(", "tracing::warn!(", "tracing::error!("] {
            let calls = source.split(start).skip(1);
            messages.extend(calls.map(|call| message(call).to_owned()));
        }
    }
    // The security decisions, which are messages of request lines.
    let decisions = include_str!("../../src/auth/error.rs").split("=> Some(\"");
    let decisions = decisions.skip(1).filter_map(|rest| rest.split('"').next());
    messages.extend(decisions.map(str::to_owned));
    // The notes of `Config`, which are sentences for the operator.
    assert!(messages.remove("{note}"));
    assert!(messages.len() > 35, "{messages:?}");
    let missing: Vec<_> = messages
        .into_iter()
        .filter(|message| !LOG_GUIDE.contains(&format!("`{}`", message.replace("{event}", "…"))))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The last string literal in the arguments of a log call. `call` starts with these arguments and
/// contains the rest of the file.
fn message(call: &str) -> &str {
    let (mut depth, mut message) = (1, "");
    for (index, part) in call.split('"').enumerate() {
        if index % 2 == 1 {
            message = part;
            continue;
        }
        for character in part.chars() {
            depth += i32::from(character == '(') - i32::from(character == ')');
            if depth == 0 {
                return message;
            }
        }
    }
    panic!("the closing parenthesis is missing: {call}");
}

/// An operator finds every `reason` of the log in the guide.
#[test]
fn every_log_reason_is_in_the_log_guide() {
    let containers = ["auth", "invalid_token", "request", "store", "not_ready"];
    let reasons = [
        ApiError::VARIANTS,
        AuthError::VARIANTS,
        InvalidToken::VARIANTS,
        NotReady::VARIANTS,
        RequestError::VARIANTS,
        StoreError::VARIANTS,
    ];
    let reasons = reasons.into_iter().flatten();
    let missing: Vec<_> = reasons
        .filter(|reason| !containers.contains(reason))
        .filter(|reason| !LOG_GUIDE.contains(&format!("| `{reason}` |")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
