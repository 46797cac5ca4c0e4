//! What was computed from files, until they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// When files were written and how long they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    /// Of files, some of which may not be there.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let of_file = |file: PathBuf| {
            let found = file.metadata().ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        Self(files.into_iter().map(of_file).collect())
    }
}

/// Results by the file that they are of.
pub struct Memo<T> {
    kept: HashMap<PathBuf, (Stamp, Arc<T>)>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self {
            kept: HashMap::new(),
        }
    }
}

impl<T> Memo<T> {
    /// The result for `file`, computed if there is none as of `stamp`.
    pub fn get(&mut self, file: &Path, stamp: Stamp, compute: impl FnOnce() -> T) -> Arc<T> {
        match self.kept.get(file) {
            Some((known, result)) if *known == stamp => result.clone(),
            _ => {
                let result = Arc::new(compute());
                self.kept.insert(file.to_owned(), (stamp, result.clone()));
                result
            }
        }
    }
}
