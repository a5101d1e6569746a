//! `token inspect`: why a token is accepted or rejected.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    auth::{
        Inspection, Principal, Verifier, held_roles,
        role::{Coverage, unknown_roles_hint},
    },
    clock::SystemClock,
    config::{Config, env_file},
    error::ApiError,
    registry::client::RegistryClient,
    text_file,
};

/// The maximum input, in bytes. The rest is ignored: the verifier rejects much shorter tokens.
const MAX_INPUT: u64 = 1024 * 1024;

/// The names of the access token in the responses of Entra and of `az account get-access-token`.
const ACCESS_TOKEN: [&str; 2] = ["access_token", "accessToken"];

/// What may stand before a token in a log, a script or a browser's developer tools.
const PREFIXES: [&str; 6] = [
    "curl",
    "--header",
    "-H",
    "authorization:",
    "authorization\":",
    "bearer",
];

/// The answer to a token as an argument, which is not repeated.
pub(super) const TOKEN_IS_NOT_AN_ARGUMENT: &str = "\
    the token is read from standard input, because an argument stays in the shell's history and in \
    the list of processes. Run this, then paste the token: tenant-tasks token inspect";

/// Prints the result for the token on standard input. Returns whether it gives access to tasks.
pub(super) async fn inspect(directory: &Path) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    let config = Config::parse(&env_file::read_variables(directory)?)?;
    let token = read_token()?;
    let spa_client_id = config.docs.as_ref().and_then(|docs| docs.spa_client_id);
    let mut access = config.access;
    if let Some(database) = &config.store.database {
        match RegistryClient::read(database).await {
            Ok(registry) => access = access.with_registry(&registry),
            Err(error) => eprintln!("The registry of tenants is left out: {error}"),
        }
    }
    let verifier = Verifier::new(config.tokens, access, Arc::new(SystemClock::new()))?;
    let Inspection {
        outcome,
        advice,
        is_signature_verified,
        unverified_claims,
    } = verifier.inspect(&token, spa_client_id).await;
    let is_accepted = match outcome {
        Ok(principal) => print_accepted(&mut out, &principal)?,
        Err(error) => {
            let reason = error.to_string();
            let (status, detail) = ApiError::from(error).status_and_detail();
            let detail = detail.trim_end_matches('.');
            writeln!(out, "This token is rejected with {status}: {detail}.")?;
            writeln!(out, "Reason: {reason}.")?;
            if let Some(advice) = advice {
                writeln!(out, "{advice}")?;
            }
            false
        }
    };
    if !unverified_claims.is_empty() {
        let title = if is_signature_verified {
            "The token says, and its signature is valid:"
        } else {
            "The token says, and its signature was not verified:"
        };
        writeln!(out, "\n{title}")?;
    }
    for (name, value) in unverified_claims {
        writeln!(out, "  {name:<12} {value}")?;
    }
    Ok(is_accepted)
}

fn read_token() -> anyhow::Result<String> {
    let mut stdin = io::stdin();
    if stdin.is_terminal() {
        eprintln!("Paste the token, then press Enter and Ctrl-D.");
    }
    let mut input = Vec::new();
    stdin.by_ref().take(MAX_INPUT).read_to_end(&mut input)?;
    let input = text_file::decode(input).context("cannot read standard input")?;
    let token = find_token(&input)?;
    if token.is_empty() {
        bail!("standard input is empty");
    }
    Ok(token)
}

/// The token in a text that may also be an `Authorization` header, the JSON of a token response,
/// or an argument of curl, with or without quotes.
fn find_token(input: &str) -> anyhow::Result<String> {
    let input = input.strip_prefix('\u{feff}').unwrap_or(input);
    if let Ok(Value::Object(response)) = serde_json::from_str(input) {
        let token = ACCESS_TOKEN.iter().find_map(|&name| response.get(name));
        let token = token.and_then(Value::as_str);
        return token
            .map(str::to_owned)
            .context("standard input is JSON without access_token: paste the access token itself");
    }
    let mut token = input;
    loop {
        let quotes = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';');
        let mut shorter = token.trim_matches(quotes);
        for prefix in PREFIXES {
            shorter = strip_prefix_in_any_case(shorter, prefix).unwrap_or(shorter);
        }
        if shorter == token {
            break;
        }
        token = shorter;
    }
    // A terminal or an email may have wrapped the token.
    Ok(token.lines().map(str::trim).collect())
}

fn strip_prefix_in_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    // `Bearer` is a scheme only if a blank follows it.
    let is_word = prefix.ends_with(char::is_alphabetic);
    let ends_here = !is_word || rest.is_empty() || rest.starts_with(char::is_whitespace);
    (start.eq_ignore_ascii_case(prefix) && ends_here).then_some(rest)
}

/// Prints the user's permissions. Returns whether the user may see tasks.
fn print_accepted(out: &mut impl Write, principal: &Principal) -> io::Result<bool> {
    let permissions = principal.permissions();
    let (see, change) = (permissions.see, permissions.change);
    let may_see = see != Coverage::Nothing;
    writeln!(out, "This token is accepted.")?;
    if !may_see {
        writeln!(
            out,
            "But its roles ({}{}) do not give access to tasks: an administrator of its tenant assigns \
             roles under Enterprise applications, and the user then signs in again.",
            held_roles(principal.roles()),
            unknown_roles_hint(principal.roles())
        )?;
    }
    let covered = |coverage| match coverage {
        Coverage::Nothing => "no (403)",
        Coverage::Own => "yes, their own",
        Coverage::Tenant => "yes, all of the tenant",
    };
    writeln!(out, "\n  read /api/me      yes")?;
    writeln!(out, "  see tasks         {}", covered(see))?;
    writeln!(
        out,
        "  create tasks      {}",
        covered(change.min(Coverage::Own))
    )?;
    writeln!(out, "  change tasks      {}", covered(change))?;
    writeln!(
        out,
        "  delete tasks      {}",
        if permissions.delete {
            "yes"
        } else {
            "no (403)"
        }
    )?;
    Ok(may_see)
}
