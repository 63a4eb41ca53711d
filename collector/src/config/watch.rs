//! Notices that a file has other content.

use std::fs;
use std::path::PathBuf;

/// Reads the file again and again. That costs microseconds, and sees what no notification is sent
/// for: a Kubernetes ConfigMap is changed by moving a link two directories up.
pub struct FileWatch {
    path: PathBuf,
    /// `None`: it cannot be read.
    content: Option<String>,
    /// Content that was there for one look so far: somebody may still be writing.
    unsettled: Option<Option<String>>,
}

impl FileWatch {
    pub fn new(path: PathBuf, content: Option<String>) -> Self {
        Self {
            path,
            content,
            unsettled: None,
        }
    }

    /// True once for every change, at the second look that finds it.
    pub fn has_changed(&mut self) -> bool {
        let now = fs::read_to_string(&self.path).ok();
        if now == self.content {
            self.unsettled = None;
            return false;
        }
        if self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return false;
        }
        self.unsettled = None;
        self.content = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_counts_when_nobody_writes_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(path.clone(), Some("a".to_owned()));
        assert!(!watch.has_changed());
        fs::write(&path, "").unwrap();
        assert!(!watch.has_changed(), "truncated, about to be written");
        fs::write(&path, "b").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        assert!(!watch.has_changed(), "once");
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed(), "gone");
    }

    /// `c.yaml` → `..data/c.yaml`, `..data` → a directory that is replaced as a whole.
    #[test]
    fn a_config_map_that_is_swapped_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let version = |name: &str, text: &str| {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("c.yaml"), text).unwrap();
            symlink(name, directory.path().join("..new")).unwrap();
            fs::rename(
                directory.path().join("..new"),
                directory.path().join("..data"),
            )
            .unwrap();
        };
        version("..1", "a");
        let path = directory.path().join("c.yaml");
        symlink("..data/c.yaml", &path).unwrap();
        let mut watch = FileWatch::new(path, Some("a".to_owned()));
        assert!(!watch.has_changed());
        version("..2", "b");
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
    }
}
