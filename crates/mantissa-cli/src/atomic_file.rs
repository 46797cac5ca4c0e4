//! Files that are there whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::Error;

/// A file being written beside its final place, and moved there in one step by [`commit`](Self::commit). Dropped
/// without that, it leaves nothing behind.
pub struct AtomicFile {
    path: PathBuf,
    replace: bool,
    file: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Begins a file. Fails now, before the work, where the folder cannot be written to, or where the file exists and
    /// shall not be replaced.
    pub fn create(path: &Path, replace: bool) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        // Moving a file over a folder fails late, over a device such as /dev/null it succeeds.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Error::Exists {
                path: path.to_owned(),
            });
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".mantissa-").suffix(".part");
        // A temporary file is private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            replace,
            file: BufWriter::with_capacity(1 << 20, file),
        })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Brings the file to the disk, then to its name.
    pub fn commit(self) -> Result<(), Error> {
        let Self {
            path,
            replace,
            file,
        } = self;
        let written = file
            .into_inner()
            .map_err(|error| error.into_error())
            .and_then(|file| file.as_file().sync_all().map(|()| file));
        let moved = written.and_then(|file| {
            let moved = if replace {
                file.persist(&path)
            } else {
                file.persist_noclobber(&path)
            };
            moved.map_err(|error| error.error)
        });
        match moved {
            Ok(_) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { path })
            }
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}
