//! Reads `.env` and the environment, and changes the allow-list in `.env`.
//!
//! A change writes a new file with the owner and permissions of the old one and renames it over the
//! old one, so that a service never reads a half-written file. Access control lists are lost.

use std::{
    collections::BTreeSet,
    env::{self, VarError},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use tempfile::Builder;
use thiserror::Error;

use super::{
    settings::{
        ALLOWED_TENANT_IDS, ConfigError, MAY_BE_EMPTY, Settings, Variables, invalid, parse_tenants,
    },
    variables,
};
use crate::{
    ids::TenantId,
    text_file::{self, TextFileError},
};

/// An open `.env`. Its folder is locked until this is dropped, and other commands wait for it.
#[derive(Debug)]
pub struct EnvFile {
    path: PathBuf,
    text: String,
    _lock: File,
}

/// Why `.env` was not changed.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the error texts say what the variants mean")]
pub enum EnvFileError {
    #[error(
        "there is no .env in this folder: run this in the service's folder, or copy .env.example"
    )]
    Missing,
    #[error("cannot change .env: {0}")]
    Io(#[from] io::Error),
    #[error("cannot read .env: {0}")]
    Unreadable(#[from] TextFileError),
    #[error(
        "cannot replace .env, because it is mounted as a single file. Mount its folder instead. \
         Nothing was changed."
    )]
    Mounted,
    #[error(
        ".env was changed by another program at the same time. Nothing was changed. Try again."
    )]
    Changed,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        ".env, line {0}: write {ALLOWED_TENANT_IDS}=id,id on one line without $NAME, spaces or a \
         comment, then try again. Nothing was changed."
    )]
    UnsupportedSyntax(usize),
}

impl EnvFile {
    /// Opens the `.env` of a folder. Waits for other commands that have it open.
    pub fn open(directory: &Path) -> Result<Self, EnvFileError> {
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => EnvFileError::Missing,
            _ => error.into(),
        };
        // A symbolic link is kept: its target is replaced.
        let path = directory.join(".env").canonicalize().map_err(missing)?;
        // The folder is locked and not the file, because the file is replaced.
        let lock = File::open(folder_of(&path))?;
        lock.lock()?;
        let text = text_file::decode(text_file::read(&path)?)?;
        Ok(Self {
            path,
            text,
            _lock: lock,
        })
    }

    /// The variables in the file.
    pub fn variables(&self) -> Result<Variables, ConfigError> {
        parse(&self.text)
    }

    /// The text of the file with another allow-list. Does not write the file.
    pub fn with_tenants(&self, tenants: &BTreeSet<TenantId>) -> Result<String, EnvFileError> {
        edit(&self.text, tenants)
    }

    /// Replaces the file. If this fails, the file is unchanged.
    pub fn replace(&self, text: &str) -> Result<(), EnvFileError> {
        let folder = folder_of(&self.path);
        let old = fs::metadata(&self.path)?;
        let mut file = Builder::new().prefix(".env.").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Without this, the service could not read the file after root changed it.
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        // After the owner, so that the wrong group can never read the file.
        file.as_file().set_permissions(old.permissions())?;
        file.as_file().sync_all()?;
        if text_file::read(&self.path)? != self.text.as_bytes() {
            return Err(EnvFileError::Changed);
        }
        file.persist(&self.path)
            .map_err(|error| match error.error.kind() {
                io::ErrorKind::ResourceBusy => EnvFileError::Mounted,
                _ => error.error.into(),
            })?;
        // The file is replaced: a failure from here on must not be reported as "unchanged".
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// Reads `.env` in `directory` and the environment, which takes precedence.
pub fn read_variables(directory: &Path) -> Result<Variables, ConfigError> {
    let mut variables = read_file(directory)?;
    variables.extend(read_environment()?);
    Ok(variables)
}

/// The settings in the environment. An empty value does not hide the one in `.env`, unless it has a
/// meaning.
pub fn read_environment() -> Result<Variables, ConfigError> {
    let mut values = Variables::new();
    for variable in variables() {
        #[expect(
            clippy::disallowed_methods,
            reason = "the only reader of the environment"
        )]
        match env::var(variable) {
            Ok(value) if value.trim().is_empty() && !MAY_BE_EMPTY.contains(&variable) => {}
            Ok(value) => {
                values.insert(variable.to_owned(), value);
            }
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => return Err(invalid(variable, "is not valid UTF-8")),
        }
    }
    Ok(values)
}

/// The host and port to listen on. Parses only HOST and PORT, so that a health check works even if
/// other settings are invalid.
pub fn listen_address(directory: &Path) -> Result<(String, u16), ConfigError> {
    let variables = read_variables(directory).or_else(|_| read_environment())?;
    let settings = Settings::new(&variables);
    Ok((settings.host().to_owned(), settings.port()?))
}

/// The names in `.env` that are not settings. They may be typos.
pub fn unknown_names(directory: &Path) -> Result<BTreeSet<String>, ConfigError> {
    let known = variables();
    let names = read_file(directory)?.into_keys();
    Ok(names
        .filter(|name| !known.contains(name.as_str()))
        .collect())
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

fn read_file(directory: &Path) -> Result<Variables, ConfigError> {
    match read_bytes(directory)? {
        Some(bytes) => parse(&text_file::decode(bytes)?),
        None => Ok(Variables::new()),
    }
}

/// The content of `.env`; `None` if there is no such file.
pub(super) fn read_bytes(directory: &Path) -> Result<Option<Vec<u8>>, TextFileError> {
    match text_file::read(&directory.join(".env")) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TextFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Replaces the list in its last assignment, or appends a line.
///
/// The result is parsed again, to ensure that only the list differs.
fn edit(text: &str, tenants: &BTreeSet<TenantId>) -> Result<String, EnvFileError> {
    let lines = text.split_inclusive('\n').map(str::to_owned);
    let mut lines: Vec<_> = lines.collect();
    let index = lines.iter().rposition(|line| is_assignment(line));
    let number = index.unwrap_or(lines.len()) + 1;
    let unsupported = || EnvFileError::UnsupportedSyntax(number);
    let edited = if let Some(line) = index.and_then(|index| lines.get_mut(index)) {
        *line = edit_line(line, tenants).ok_or_else(unsupported)?;
        lines.concat()
    } else {
        let is_complete = text.is_empty() || text.ends_with('\n');
        let line_break = if is_complete { "" } else { "\n" };
        let list = join(tenants);
        format!("{text}{line_break}{ALLOWED_TENANT_IDS}={list}\n")
    };
    let mut expected = parse(text)?;
    let list = expected.entry(ALLOWED_TENANT_IDS.to_owned()).or_default();
    let mut actual = parse(&edited).map_err(|_| unsupported())?;
    let written = actual.insert(ALLOWED_TENANT_IDS.to_owned(), list.clone());
    let is_written = parse_tenants(&written.unwrap_or_default()).is_ok_and(|set| set == *tenants);
    if is_written && actual == expected {
        Ok(edited)
    } else {
        Err(unsupported())
    }
}

fn is_assignment(line: &str) -> bool {
    let name = line.trim_start();
    let name = name.strip_prefix("export ").unwrap_or(name).trim_start();
    let rest = name.strip_prefix(ALLOWED_TENANT_IDS);
    rest.is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// Replaces the list in a line. Entries that stay keep their order. `None` if the value is not a
/// list of ids, without quotes or in one pair of quotes.
fn edit_line(line: &str, tenants: &BTreeSet<TenantId>) -> Option<String> {
    let (name, value) = line.split_once('=')?;
    let (value, line_end) = value.split_at(value.trim_end().len());
    let quote = value.chars().next().filter(|&c| matches!(c, '"' | '\''));
    let list = match quote {
        Some(quote) => value.strip_prefix(quote)?.strip_suffix(quote)?,
        None => value,
    };
    let mut entries = Vec::new();
    for entry in list.split(',').map(str::trim) {
        if !entry.is_empty() {
            entries.push(entry.parse::<TenantId>().ok()?);
        }
    }
    let kept = entries.iter().filter(|entry| tenants.contains(entry));
    let added = tenants.iter().filter(|tenant| !entries.contains(tenant));
    let list = join(kept.chain(added));
    let quote = quote.map(String::from).unwrap_or_default();
    Some(format!("{name}={quote}{list}{quote}{line_end}"))
}

fn join<'a>(tenants: impl IntoIterator<Item = &'a TenantId>) -> String {
    let tenants = tenants.into_iter().map(TenantId::to_string);
    tenants.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-4111-8111-111111111111";
    const B: &str = "22222222-2222-4222-8222-222222222222";
    const C: &str = "33333333-3333-4333-8333-33333333333a";

    fn set(tenants: &[&str]) -> BTreeSet<TenantId> {
        let tenants = tenants.iter().map(|tenant| tenant.parse().unwrap());
        tenants.collect()
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
            let edited = edit(&old, &set(&[B, C])).map_err(|error| error.to_string());
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
            let edited = edit(&text, &set(&[A]));
            let is_rejected =
                matches!(&edited, Err(EnvFileError::UnsupportedSyntax(at)) if *at == line);
            assert!(is_rejected, "{text}: {edited:?}");
        }
    }

    #[test]
    fn permissions_and_symbolic_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = elsewhere.path().join("settings");
        fs::write(&real, format!("ALLOWED_TENANT_IDS={A}\n")).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, folder.path().join(".env")).unwrap();
        let file = EnvFile::open(folder.path()).unwrap();
        let text = file.with_tenants(&set(&[A, B])).unwrap();
        file.replace(&text).unwrap();
        assert!(folder.path().join(".env").is_symlink());
        let expected = format!("ALLOWED_TENANT_IDS={A},{B}\n");
        assert_eq!(fs::read_to_string(&real).unwrap(), expected);
        let mode = fs::metadata(&real).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let files = fs::read_dir(elsewhere.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }
}
