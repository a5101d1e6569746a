//! `token inspect`: why a token is accepted or refused, for the person who has to find out.

use std::{
    io::{self, IsTerminal, Read},
    path::Path,
    sync::Arc,
};

use super::Error;
use crate::{
    auth::{Inspection, Principal, Verifier},
    clock::SystemClock,
    config::{self, Config},
    error::ApiError,
    ids::Reach,
};

/// More than any token has, in bytes; what is longer is told to be too long without being read to its end.
const MAX_INPUT: u64 = 1024 * 1024;

pub(super) async fn inspect(directory: &Path) -> Result<bool, Error> {
    let config = Config::parse(&config::read_variables(directory)?)?;
    let token = read_token()?;
    let verifier = Verifier::new(config.tokens, config.access, Arc::new(SystemClock::new()))?;
    let Inspection {
        outcome,
        why,
        unverified_claims,
    } = verifier.inspect(&token).await;
    let is_accepted = match outcome {
        Ok(caller) => print_accepted(&caller),
        Err(error) => {
            let (status, detail) = ApiError::from(error).told();
            println!("This token would be refused, with {status}: {detail}.");
            println!("{}", why.unwrap_or_default());
            false
        }
    };
    if !unverified_claims.is_empty() {
        println!(
            "\nIt says of itself{}:",
            if is_accepted {
                ""
            } else {
                ", which proves nothing"
            }
        );
    }
    for (name, value) in unverified_claims {
        println!("  {name:<12} {value}");
    }
    Ok(is_accepted)
}

fn read_token() -> Result<String, Error> {
    if io::stdin().is_terminal() {
        eprintln!("Paste the token, then press Enter and Ctrl-D.");
    }
    let mut input = Vec::new();
    io::stdin().take(MAX_INPUT).read_to_end(&mut input)?;
    let input = String::from_utf8(input).map_err(|_| "standard input is not text")?;
    let text = input.trim();
    // Whoever copies a header has more than the token.
    let text = text
        .strip_prefix("Authorization:")
        .unwrap_or(text)
        .trim_start();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        Some(_) | None => text,
    };
    if token.is_empty() {
        Err("there is no token on standard input".into())
    } else {
        Ok(token.to_owned())
    }
}

/// Says what the caller may do; whether they may do anything with tasks.
fn print_accepted(caller: &Principal) -> bool {
    let may = |is_allowed: bool| if is_allowed { "yes" } else { "no, with 403" };
    let (is_reader, is_editor, is_admin) =
        (caller.is_reader(), caller.is_editor(), caller.is_admin());
    if is_reader {
        println!("This token would be accepted.");
    } else {
        println!(
            "This token would be accepted, but its holder would be refused, with 403, wherever tasks are."
        );
        println!(
            "Its roles are {:?}, none of Admin, Editor and Reader: an administrator of its tenant gives people \
             roles under Enterprise applications, and the person then signs in anew.",
            caller.roles()
        );
    }
    let whose = if caller.reach() == Reach::Tenant {
        "the whole organisation's"
    } else {
        "their own"
    };
    println!("\n  who they are           yes");
    println!(
        "  see tasks              {}{}",
        may(is_reader),
        if is_reader {
            format!(", {whose}")
        } else {
            String::new()
        }
    );
    println!("  create and change them {}", may(is_editor));
    println!("  delete them            {}", may(is_admin));
    is_reader
}
