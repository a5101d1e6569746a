//! Reads a small text file that an operator writes.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use thiserror::Error;

/// The largest file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub enum TextFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it is UTF-16: save it as UTF-8")]
    Utf16,
    #[error("it is not UTF-8")]
    NotUtf8,
}

/// The content of a regular file. Blocks, for as long as the file system does.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TextFileError> {
    // Opening a FIFO would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(TextFileError::NotRegular);
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(TextFileError::TooLarge);
    }
    Ok(bytes)
}

/// Decodes UTF-8. A byte order mark is kept.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, TextFileError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(TextFileError::Utf16);
    }
    String::from_utf8(bytes).map_err(|_| TextFileError::NotUtf8)
}
