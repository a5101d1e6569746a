//! Reads `.env` and the environment, and changes the lists in `.env`.
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
    env_text::{List, parse},
    settings::{ConfigError, MAY_BE_EMPTY, Settings, Variables, invalid},
    variables,
};
use crate::{
    telemetry::log::LogFormat,
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
        ".env, line {line}: write {variable}=id,id on one line without $NAME, spaces or a comment, \
         then try again. Nothing was changed."
    )]
    UnsupportedSyntax { variable: &'static str, line: usize },
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

    /// The text of the file with other entries in a list. Does not write the file.
    pub fn with_list(
        &self,
        list: List,
        entries: &BTreeSet<String>,
    ) -> Result<String, EnvFileError> {
        let variable = list.variable;
        let edited = list.edit(&self.text, entries);
        edited.map_err(|line| EnvFileError::UnsupportedSyntax { variable, line })
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

/// The name of the user who runs a command; `None` if the environment does not contain it.
pub fn user_name() -> Option<String> {
    let names = ["USER", "LOGNAME"].into_iter();
    #[expect(
        clippy::disallowed_methods,
        reason = "the only reader of the environment"
    )]
    let mut names = names.filter_map(|name| env::var(name).ok());
    names.find(|name| !name.is_empty())
}

/// The host and port to listen on. Parses only HOST and PORT, so that a health check works even if
/// other settings are invalid.
pub fn listen_address(directory: &Path) -> Result<(String, u16), ConfigError> {
    let variables = read_variables_or_environment(directory)?;
    let settings = Settings::new(&variables);
    Ok((settings.host().to_owned(), settings.port()?))
}

/// The format of log lines. Parses only `LOG_FORMAT`, so that an error about another setting has this
/// format.
pub fn log_format(directory: &Path) -> LogFormat {
    let variables = read_variables_or_environment(directory).unwrap_or_default();
    let format = Settings::new(&variables).log_format();
    format.unwrap_or(LogFormat::Text)
}

/// Like [`read_variables`], but ignores an `.env` that cannot be read or parsed.
fn read_variables_or_environment(directory: &Path) -> Result<Variables, ConfigError> {
    read_variables(directory).or_else(|_| read_environment())
}

/// The names in `.env` that are not settings. They may be typos.
pub fn unknown_names(directory: &Path) -> Result<BTreeSet<String>, ConfigError> {
    let known = variables();
    let names = read_file(directory)?.into_keys();
    Ok(names
        .filter(|name| !known.contains(name.as_str()))
        .collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "11111111-1111-4111-8111-111111111111";
    const B: &str = "22222222-2222-4222-8222-222222222222";

    #[test]
    fn owner_permissions_and_symbolic_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = elsewhere.path().join("settings");
        fs::write(&real, format!("ALLOWED_TENANT_IDS={A}\n")).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, folder.path().join(".env")).unwrap();
        // Only root may change the owner. For other users, the owner stays the same anyway.
        let _ = chown(&real, Some(1), Some(2));
        let old = fs::metadata(&real).unwrap();
        let file = EnvFile::open(folder.path()).unwrap();
        let text = file
            .with_list(List::TENANTS, &[A, B].map(str::to_owned).into())
            .unwrap();
        file.replace(&text).unwrap();
        assert!(folder.path().join(".env").is_symlink());
        let expected = format!("ALLOWED_TENANT_IDS={A},{B}\n");
        assert_eq!(fs::read_to_string(&real).unwrap(), expected);
        let new = fs::metadata(&real).unwrap();
        assert_eq!(new.permissions().mode() & 0o777, 0o640);
        assert_eq!((new.uid(), new.gid()), (old.uid(), old.gid()));
        let files = fs::read_dir(elsewhere.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn unreadable_env_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_bytes(folder.path()).unwrap(), None);
        // Not even root can open a link that points to itself.
        std::os::unix::fs::symlink(".env", folder.path().join(".env")).unwrap();
        assert!(matches!(
            read_bytes(folder.path()),
            Err(TextFileError::Io(_))
        ));
    }
}
