//! Files of one JSON object a line that may still be written to.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Error;

/// What a file holds.
pub struct JsonLines<T> {
    /// The objects, in order.
    pub records: Vec<T>,
    /// The numbers, from 1, of whole lines that are no such objects.
    pub unreadable: Vec<usize>,
}

/// Reads a file; `None` where there is none. A last line without its end is being written, and is left for the next time.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<JsonLines<T>>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut lines = JsonLines {
        records: Vec::new(),
        unreadable: Vec::new(),
    };
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(record) => lines.records.push(record),
            Err(_) if line.ends_with(b"\n") => lines.unreadable.push(index + 1),
            Err(_) => {}
        }
    }
    Ok(Some(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_being_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        assert!(read::<u64>(&path).unwrap().is_none());
        fs::write(&path, "1\n2\nx\n\n3\n[4").unwrap();
        let lines = read::<u64>(&path).unwrap().unwrap();
        assert_eq!(lines.records, [1, 2, 3]);
        assert_eq!(lines.unreadable, [3]);
    }
}
