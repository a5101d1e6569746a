//! The list of tenants in `.env`, changed where it stands, and nothing else of the file.
//!
//! The new file takes the old one's place at one stroke, with its owner and its permissions (but no access control
//! lists), so a service that reads it meanwhile sees either. What is written is read back first: unless it says
//! exactly what it should, and every other setting says what it said, nothing is written.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use tempfile::Builder;
use thiserror::Error;

use crate::{
    config::{self, ConfigError, Variables},
    ids::TenantId,
};

/// The setting with the list.
pub const VARIABLE: &str = "ALLOWED_TENANT_IDS";

/// An `.env`, and the right to change it: no other command does while this is held.
#[derive(Debug)]
pub struct EnvFile {
    path: PathBuf,
    text: String,
    _lock: File,
}

/// Why `.env` was not changed.
#[derive(Debug, Error)]
pub enum EnvFileError {
    /// There is none.
    #[error(
        "there is no .env in this folder: call this where the service runs, or make one from .env.example"
    )]
    Missing,
    /// It cannot be read or written.
    #[error(".env cannot be changed: {0}")]
    Io(#[from] io::Error),
    /// Somebody has written it meanwhile.
    #[error(".env was changed by someone else at the same time; nothing was changed, try again")]
    Changed,
    /// It makes no sense as it is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The list is written in a way that this cannot change without changing what it means.
    #[error(
        ".env, line {0}: {VARIABLE} is written in a way that only a person can change; nothing was changed"
    )]
    TooClever(usize),
}

impl EnvFile {
    /// Opens the `.env` of a folder, waiting for other commands that have it open.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, EnvFileError> {
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => EnvFileError::Missing,
            _ => error.into(),
        };
        // A link stays a link.
        let path = directory.join(".env").canonicalize().map_err(missing)?;
        // The folder it is in is locked, not the file: that is replaced.
        let lock = File::open(folder_of(&path))?;
        lock.lock()?;
        let text = fs::read_to_string(&path)?;
        Ok(Self {
            path,
            text,
            _lock: lock,
        })
    }

    /// Makes the list of tenants say `new`, where it says `old`.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then the file is as it was.
    pub fn set_tenants(
        &self,
        old: &BTreeSet<TenantId>,
        new: &BTreeSet<TenantId>,
    ) -> Result<(), EnvFileError> {
        self.replace(&edited(&self.text, old, new)?)
    }

    /// What it sets.
    ///
    /// # Errors
    ///
    /// When a line makes no sense.
    pub fn variables(&self) -> Result<Variables, ConfigError> {
        config::parse_file(&self.text)
    }

    fn replace(&self, text: &str) -> Result<(), EnvFileError> {
        let folder = folder_of(&self.path);
        let old = fs::metadata(&self.path)?;
        let mut file = Builder::new().prefix(".env.").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Else the service could not read what an administrator has changed.
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        // Only then, so that no other group reads it for a moment.
        file.as_file().set_permissions(old.permissions())?;
        file.as_file().sync_all()?;
        if fs::read_to_string(&self.path)? != self.text {
            return Err(EnvFileError::Changed);
        }
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The text with the list changed.
fn edited(
    text: &str,
    old: &BTreeSet<TenantId>,
    new: &BTreeSet<TenantId>,
) -> Result<String, EnvFileError> {
    let before = config::parse_file(text)?;
    let (number, edited) = match find_list(text) {
        Some((number, place)) => (number, with_list(text, &place, old, new)),
        None => (text.lines().count() + 1, with_new_line(text, new)),
    };
    let after = config::parse_file(&edited).map_err(|_| EnvFileError::TooClever(number))?;
    let (says, others) = split(after);
    if config::parse_tenants(&says).is_ok_and(|says| says == *new) && others == split(before).1 {
        Ok(edited)
    } else {
        Err(EnvFileError::TooClever(number))
    }
}

fn with_new_line(text: &str, new: &BTreeSet<TenantId>) -> String {
    let line_break = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let list: Vec<_> = new.iter().map(TenantId::to_string).collect();
    format!("{text}{line_break}{VARIABLE}={}\n", list.join(","))
}

fn with_list(
    text: &str,
    place: &Range<usize>,
    old: &BTreeSet<TenantId>,
    new: &BTreeSet<TenantId>,
) -> String {
    let part = |range| text.get(range).unwrap_or_default();
    let is_removed = |entry: &str| {
        entry
            .trim()
            .parse()
            .is_ok_and(|tenant| old.contains(&tenant) && !new.contains(&tenant))
    };
    let kept: Vec<_> = part(place.start..place.end)
        .split(',')
        .filter(|entry| !is_removed(entry))
        .collect();
    let mut list = kept.join(",");
    for tenant in new.difference(old) {
        let is_first = list.trim().is_empty() || list.trim_end().ends_with(',');
        let comma = if is_first { "" } else { "," };
        list = format!("{}{comma}{tenant}", list.trim_end());
    }
    format!(
        "{}{list}{}",
        part(0..place.start),
        part(place.end..text.len())
    )
}

fn split(mut variables: Variables) -> (String, Variables) {
    (variables.remove(VARIABLE).unwrap_or_default(), variables)
}

/// Where the list is that counts, the last one: the number of its line, and the place of what is between the quotes
/// or, without any, before a comment.
fn find_list(text: &str) -> Option<(usize, Range<usize>)> {
    let mut found = None;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let name = line.trim_start();
        let name = name.strip_prefix("export ").unwrap_or(name).trim_start();
        if let Some(value) = name
            .strip_prefix(VARIABLE)
            .and_then(|rest| rest.trim_start().strip_prefix('='))
        {
            let value_start = offset + line.len() - value.len();
            let place = list_within(value);
            found = Some((
                index + 1,
                value_start + place.start..value_start + place.end,
            ));
        }
        offset += line.len();
    }
    found
}

fn list_within(value: &str) -> Range<usize> {
    let list = value.trim_start();
    let start = value.len() - list.len();
    if let Some(quote) = list
        .chars()
        .next()
        .filter(|&first| first == '"' || first == '\'')
    {
        let inside = start + 1;
        let length = value
            .get(inside..)
            .and_then(|rest| rest.find(quote))
            .unwrap_or(0);
        return inside..inside + length;
    }
    let end = value.find(" #").unwrap_or(value.len());
    let list = value.get(..end).unwrap_or_default().trim();
    start.min(end)..start.min(end) + list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-4111-8111-111111111111";
    const B: &str = "22222222-2222-4222-8222-222222222222";
    const C: &str = "33333333-3333-4333-8333-33333333333a";

    fn set(tenants: &[&str]) -> BTreeSet<TenantId> {
        tenants
            .iter()
            .map(|tenant| tenant.parse().unwrap())
            .collect()
    }

    #[test]
    fn a_tenant_is_added_where_the_list_stands_and_all_else_stays_as_it_was() {
        for (old, new) in [
            ("", format!("ALLOWED_TENANT_IDS={A},{B}\n")),
            ("PORT=1", format!("PORT=1\nALLOWED_TENANT_IDS={A},{B}\n")),
            (
                "ALLOWED_TENANT_IDS=A\n",
                format!("ALLOWED_TENANT_IDS={A},{B}\n"),
            ),
            (
                "ALLOWED_TENANT_IDS=A # ours\nPORT=1",
                format!("ALLOWED_TENANT_IDS={A},{B} # ours\nPORT=1"),
            ),
            (
                "ALLOWED_TENANT_IDS=A,\r\nPORT=1\r\n",
                format!("ALLOWED_TENANT_IDS={A},{B}\r\nPORT=1\r\n"),
            ),
            (
                "export ALLOWED_TENANT_IDS=\"A\" # x",
                format!("export ALLOWED_TENANT_IDS=\"{A},{B}\" # x"),
            ),
            (
                "ALLOWED_TENANT_IDS='A '\n",
                format!("ALLOWED_TENANT_IDS='{A},{B}'\n"),
            ),
            (
                "# ALLOWED_TENANT_IDS=\nX=1",
                format!("# ALLOWED_TENANT_IDS=\nX=1\nALLOWED_TENANT_IDS={A},{B}\n"),
            ),
            (
                "ALLOWED_TENANT_IDS=B\n# the last one counts\nALLOWED_TENANT_IDS=A\n",
                format!(
                    "ALLOWED_TENANT_IDS={B}\n# the last one counts\nALLOWED_TENANT_IDS={A},{B}\n"
                ),
            ),
            (
                "T=A\nALLOWED_TENANT_IDS=$T\n",
                format!("T={A}\nALLOWED_TENANT_IDS=$T,{B}\n"),
            ),
        ] {
            let old = old
                .replace("=A", &format!("={A}"))
                .replace("\"A", &format!("\"{A}"));
            let old = old
                .replace("'A", &format!("'{A}"))
                .replace("=B", &format!("={B}"));
            let changed =
                edited(&old, &set(&[A]), &set(&[A, B])).map_err(|error| error.to_string());
            assert_eq!(changed, Ok(new), "{old:?}");
        }
    }

    #[test]
    fn a_tenant_is_removed_wherever_it_stands() {
        for (old, new) in [
            (
                format!("ALLOWED_TENANT_IDS={A},{B},{C}"),
                format!("ALLOWED_TENANT_IDS={A},{C}"),
            ),
            (
                format!("ALLOWED_TENANT_IDS='{B}, {A} ,{C}' # x"),
                format!("ALLOWED_TENANT_IDS=' {A} ,{C}' # x"),
            ),
            (
                format!("ALLOWED_TENANT_IDS=\"{A},{},{B},{B}\"", C.to_uppercase()),
                format!("ALLOWED_TENANT_IDS=\"{A},{}\"", C.to_uppercase()),
            ),
        ] {
            let changed =
                edited(&old, &set(&[A, B, C]), &set(&[A, C])).map_err(|error| error.to_string());
            assert_eq!(changed, Ok(new), "{old:?}");
        }
    }

    #[test]
    fn what_cannot_be_changed_safely_is_left_to_a_person() {
        for clever in [
            format!("T={B}\nALLOWED_TENANT_IDS={A},$T\n"),
            format!("ALLOWED_TENANT_IDS=\"{A},\n{B}\"\n"),
            format!("ALLOWED_TENANT_IDS={A},{B}\nOTHER=${{ALLOWED_TENANT_IDS}}\n"),
        ] {
            let changed = edited(&clever, &set(&[A, B]), &set(&[A]));
            assert!(
                matches!(changed, Err(EnvFileError::TooClever(_))),
                "{clever}: {changed:?}"
            );
        }
    }

    #[test]
    fn the_file_keeps_its_permissions_and_a_link_stays_a_link() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = elsewhere.path().join("settings");
        fs::write(&real, format!("ALLOWED_TENANT_IDS={A}\n")).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, folder.path().join(".env")).unwrap();
        EnvFile::open(folder.path())
            .unwrap()
            .set_tenants(&set(&[A]), &set(&[A, B]))
            .unwrap();
        assert!(folder.path().join(".env").is_symlink());
        assert_eq!(
            fs::read_to_string(&real).unwrap(),
            format!("ALLOWED_TENANT_IDS={A},{B}\n")
        );
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            fs::read_dir(elsewhere.path()).unwrap().count(),
            1,
            "nothing else is left behind"
        );
    }
}
