//! A container's directory under `--root`.
//!
//! ```text
//! ROOT/                0700
//!   ID/                0700, the caller's or root's; locked with flock(2) by whoever changes
//!                      the container
//!     state.json       written by rename
//!     seccomp.bpf      the filter that `exec` puts its processes under, where there is one
//!     start.sock       while the container waits for `start`
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::id;

/// A locked container directory.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: Flock<File>,
}

/// What can go wrong with a container's directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] id::Error),
    /// There is such a container already.
    #[error("container with given ID already exists")]
    Exists,
    /// There is no such container. (Engines look for `does not exist`.)
    #[error("container does not exist")]
    Missing,
    /// Another invocation has deleted it before it was made.
    #[error("container was deleted while it was created")]
    Deleted,
    /// Another user wrote it, and with it what is killed, removed and executed as a hook.
    #[error(
        "{path:?} belongs to user {owner}, whose word for it is not taken: let that user do it"
    )]
    Foreign {
        /// The directory or the file.
        path: PathBuf,
        /// The user's id.
        owner: u32,
    },
    /// A step on a file.
    #[error("{step} {path:?}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `state.json` is not what this program writes.
    #[error("read {path:?}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

const STATE_JSON: &str = "state.json";

/// The container's compiled seccomp filter.
pub(crate) const SECCOMP_BPF: &str = "seccomp.bpf";

fn on(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step, path, source }
}

impl StateDir {
    /// Makes the directory of a new container and locks it.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Self, Error> {
        id::check(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let path = root.join(id);
        let made = match builder.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                builder
                    .recursive(true)
                    .create(root)
                    .map_err(on("make", root))?;
                builder.recursive(false).create(&path)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists);
            }
            made => made.map_err(on("make", &path))?,
        }
        match Self::lock(path) {
            Err(Error::Missing) => Err(Error::Deleted),
            locked => locked,
        }
    }

    /// Opens the directory of a container and waits for its lock.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none, or it is deleted while we wait.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self, Error> {
        id::check(id)?;
        Self::lock(root.join(id))
    }

    fn lock(path: PathBuf) -> Result<Self, Error> {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing),
            opened => opened.map_err(on("open", &path))?,
        };
        let mut file = file;
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => break lock,
                Err((again, Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(on("lock", &path)(errno.into())),
            }
        };
        let metadata = lock.metadata().map_err(on("stat", &path))?;
        check_owner(&path, &metadata)?;
        // Whoever held the lock may have deleted the container, and somebody else may have made
        // another one of its name since.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let locked = identity(metadata);
        match fs::symlink_metadata(&path).map(identity) {
            Ok(there) if there == locked => Ok(Self { path, lock }),
            Ok(_) => Err(Error::Missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing),
            Err(error) => Err(on("stat", &path)(error)),
        }
    }

    /// The directory as a descriptor.
    pub(crate) fn fd(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `state.json`, by rename.
    ///
    /// # Errors
    /// The step and the system's answer; a full disk leaves the old file.
    pub(crate) fn write_state(&self, state: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(STATE_JSON);
        let temporary = self.path.join(".state.json");
        let text = serde_json::to_vec(state).map_err(|error| Error::Content {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(on("write", &path))
    }

    /// Writes another file of the container's, which never changes.
    ///
    /// # Errors
    /// The step and the system's answer.
    pub(crate) fn write_file(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(on("write", &path))
    }

    /// Reads `state.json`; None where `create` died before it wrote one.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub(crate) fn read_state<S: DeserializeOwned>(&self) -> Result<Option<S>, Error> {
        read_state(&self.path)
    }

    /// What a `state.json` that cannot be understood still says about `field`.
    pub(crate) fn salvage<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        let text = fs::read(self.path.join(STATE_JSON)).ok()?;
        salvage(&text, field)
    }

    /// Removes the directory and what is in it.
    ///
    /// # Errors
    /// The system's answer.
    pub(crate) fn remove(self) -> Result<(), Error> {
        // Another invocation that waits for the lock finds the directory gone.
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(on("remove", &self.path)),
        }
    }
}

/// Reads the `state.json` in `dir` without its lock: rename makes it whole at any time.
///
/// # Errors
/// The file is there and cannot be read or understood.
pub(crate) fn read_state<S: DeserializeOwned>(dir: &Path) -> Result<Option<S>, Error> {
    let path = dir.join(STATE_JSON);
    let text = match read_own(&path) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        read => read?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Error::Content {
            path,
            problem: error.to_string(),
        })
}

/// The value of the first `"field":` in `text`, whatever comes before and after it.
fn salvage<T: DeserializeOwned>(text: &[u8], field: &str) -> Option<T> {
    let key = format!("\"{field}\":");
    let start = text
        .windows(key.len())
        .position(|window| window == key.as_bytes())?;
    let mut values = serde_json::Deserializer::from_slice(&text[start + key.len()..]).into_iter();
    values.next()?.ok()
}

/// Reads what [`StateDir::write_file`] wrote in `dir`.
///
/// # Errors
/// The step and the system's answer.
pub(crate) fn read_file(dir: &Path, name: &str) -> Result<Vec<u8>, Error> {
    read_own(&dir.join(name))
}

/// Reads a file that nobody else can have written.
fn read_own(path: &Path) -> Result<Vec<u8>, Error> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(on("read", path))?;
    check_owner(path, &file.metadata().map_err(on("stat", path))?)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(on("read", path))?;
    Ok(content)
}

/// Refuses what belongs to neither the caller nor root: a caller with more rights would be told
/// by it what to do with them.
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let owner = metadata.uid();
    if owner == Uid::effective().as_raw() || owner == 0 {
        return Ok(());
    }
    let path = path.to_owned();
    Err(Error::Foreign { path, owner })
}

/// Checks that a container called `id` is under `root`, without its lock.
///
/// # Errors
/// [`Error::Missing`], [`Error::Foreign`].
pub(crate) fn existing(root: &Path, id: &str) -> Result<PathBuf, Error> {
    id::check(id)?;
    let path = root.join(id);
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => check_owner(&path, &metadata).map(|()| path),
        _ => Err(Error::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        let root = root.path().join("not/yet/there");
        let dir = StateDir::create(&root, "a").expect("created");
        assert!(matches!(StateDir::create(&root, "a"), Err(Error::Exists)));
        dir.write_state(&vec![1, 2]).expect("written");
        assert_eq!(
            dir.read_state::<Vec<i32>>().expect("read"),
            Some(vec![1, 2])
        );
        dir.remove().expect("removed");
        assert!(matches!(StateDir::open(&root, "a"), Err(Error::Missing)));
    }

    #[test]
    fn what_is_whole_of_a_file_that_was_cut_short_is_found() {
        let text = br#"{"id":"a","init":{"pid":3},"cgroup":["x","y"],"bundle":"/b"#;
        assert_eq!(salvage(text, "id"), Some("a".to_owned()));
        let list: Option<Vec<String>> = salvage(text, "cgroup");
        assert_eq!(list, Some(vec!["x".into(), "y".into()]));
        assert_eq!(salvage::<String>(text, "bundle"), None);
        assert_eq!(salvage::<String>(text, "owner"), None);
    }
}
