//! `token inspect`: why a token is accepted or rejected.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};

use crate::{
    auth::{Inspection, Principal, Verifier, role::Coverage},
    clock::SystemClock,
    config::{Config, env_file},
    error::ApiError,
};

/// The maximum input, in bytes. The rest is ignored: the verifier rejects much shorter tokens.
const MAX_INPUT: u64 = 1024 * 1024;

/// Prints the result for the token on standard input. Returns whether it gives access to tasks.
pub(super) async fn inspect(directory: &Path) -> anyhow::Result<bool> {
    let mut out = io::stdout();
    let config = Config::parse(&env_file::read_variables(directory)?)?;
    let token = read_token()?;
    let verifier = Verifier::new(config.tokens, config.access, Arc::new(SystemClock::new()))?;
    let Inspection {
        outcome,
        advice,
        unverified_claims,
    } = verifier.inspect(&token).await;
    let (is_accepted, title) = match outcome {
        Ok(principal) => (print_accepted(&mut out, &principal)?, "The token says:"),
        Err(error) => {
            let reason = error.to_string();
            let (status, detail) = ApiError::from(error).status_and_detail();
            let detail = detail.trim_end_matches('.');
            writeln!(out, "This token is rejected with {status}: {detail}.")?;
            writeln!(out, "Reason: {reason}.")?;
            if let Some(advice) = advice {
                writeln!(out, "{advice}")?;
            }
            (false, "The token says, unverified:")
        }
    };
    if !unverified_claims.is_empty() {
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
    let input = String::from_utf8(input).context("standard input is not text")?;
    // The input may be a whole `Authorization` header.
    let text = input.trim();
    let text = text.strip_prefix("Authorization:").unwrap_or(text);
    let text = text.trim_start();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        Some(_) | None => text,
    };
    if token.is_empty() {
        bail!("standard input is empty");
    }
    Ok(token.to_owned())
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
            "But its roles {:?} do not give access to tasks: an administrator of its tenant assigns \
             roles under Enterprise applications, and the user then signs in again.",
            principal.roles()
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
