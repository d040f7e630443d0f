//! Looking through the trees that btrfs keeps its own records in.
//!
//! Layouts and numbers: Linux, include/uapi/linux/btrfs.h and btrfs_tree.h.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::errno::CallError;

/// How many bytes of items one call brings: those of some dozens of subvolumes.
const ROOM: usize = 32 << 10;
/// The bytes before each item: transaction, object, offset, kind and length.
const HEADER_BYTES: usize = 32;

/// The place of an item in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

impl Key {
    /// The one behind it; None at the end.
    fn next(self) -> Option<Self> {
        match (self.offset.checked_add(1), self.kind.checked_add(1)) {
            (Some(offset), _) => Some(Self { offset, ..self }),
            (None, Some(kind)) => Some(Self {
                kind,
                offset: 0,
                ..self
            }),
            (None, None) => None,
        }
    }
}

/// An item of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) data: Vec<u8>,
}

impl Item {
    /// The number at `at` in its data; 0 if that is shorter.
    pub(super) fn number(&self, at: usize) -> u64 {
        let bytes = self.data.get(at..).and_then(|data| data.first_chunk());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The items of `tree` from `first` to `last`. None: there is no such tree.
///
/// # Errors
/// When the user may not look.
pub(super) fn search(
    fd: BorrowedFd<'_>,
    tree: u64,
    first: Key,
    last: Key,
) -> Result<Option<Vec<Item>>, CallError> {
    let mut found = Vec::new();
    let mut next = Some(first);
    while let Some(first) = next {
        let mut search = Search::new(tree, first, last);
        // SAFETY: the kernel reads the key and the size of `search` during the call, and writes
        // no more than as many bytes behind them as the size says, which are there.
        match unsafe { raw::tree_search_v2(fd.as_raw_fd(), &raw mut search) } {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(CallError::new("search_tree", "", errno)),
        }
        let before = found.len();
        found.extend(items(&search.items, search.count));
        let last = found[before..].last();
        next = last.and_then(|item: &Item| item.key.next());
    }
    Ok(Some(found))
}

/// The first `count` items in what a call has brought.
fn items(mut bytes: &[u8], count: u32) -> Vec<Item> {
    let mut items = Vec::new();
    for _ in 0..count {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            break;
        };
        let number = |at| {
            let bytes = header[at..].first_chunk();
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let half = |at| {
            let bytes = header[at..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        let (object, offset, kind) = (number(8), number(16), half(24));
        let length = usize::try_from(half(28)).unwrap_or(usize::MAX);
        let Some((data, rest)) = rest.split_at_checked(length) else {
            break;
        };
        items.push(Item {
            key: Key {
                object,
                kind,
                offset,
            },
            data: data.to_owned(),
        });
        bytes = rest;
    }
    items
}

/// `struct btrfs_ioctl_search_args_v2`, with room for items.
#[repr(C)]
pub(crate) struct Search {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    kinds: [u32; 2],
    count: u32,
    unused: [u32; 9],
    room: u64,
    items: [u8; ROOM],
}

impl Search {
    fn new(tree: u64, first: Key, last: Key) -> Self {
        Self {
            tree,
            objects: [first.object, last.object],
            offsets: [first.offset, last.offset],
            transactions: [0, u64::MAX],
            kinds: [first.kind, last.kind],
            count: u32::MAX,
            unused: [0; 9],
            room: 32 << 10,
            items: [0; ROOM],
        }
    }
}

/// The size of [`Search`] without items, which is in the number of the call.
const SEARCH_BYTES: usize = 112;

const _: () = assert!(size_of::<Search>() == SEARCH_BYTES + ROOM);

/// The bare ioctl, unsafe because the kernel trusts its pointer.
mod raw {
    use super::super::MAGIC;
    use super::{SEARCH_BYTES, Search};

    nix::ioctl_readwrite_bad!(
        tree_search_v2,
        nix::request_code_readwrite!(MAGIC, 17, SEARCH_BYTES),
        Search
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(object: u64, kind: u32, offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [7, object, offset] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(length.to_ne_bytes());
        bytes
    }

    #[test]
    fn items_are_read_as_they_lie_and_no_further() {
        let mut bytes = header(1, 2, 3, 8);
        bytes.extend(5_u64.to_le_bytes());
        bytes.extend(header(4, 5, 6, 0));
        let found = items(&bytes, 2);
        let key = |object, kind, offset| Key {
            object,
            kind,
            offset,
        };
        let keys: Vec<_> = found.iter().map(|item| item.key).collect();
        assert_eq!(keys, [key(1, 2, 3), key(4, 5, 6)]);
        assert_eq!((found[0].number(0), found[0].number(1)), (5, 0));
        assert_eq!(items(&bytes, 1).len(), 1);
        assert_eq!(items(&bytes[..40], 9).len(), 1, "what is cut off is none");
        assert_eq!(items(&header(1, 1, 1, u32::MAX), 1), []);
    }

    #[test]
    fn behind_the_last_offset_begins_the_next_kind() {
        let key = |kind, offset| Key {
            object: 9,
            kind,
            offset,
        };
        assert_eq!(key(1, 1).next(), Some(key(1, 2)));
        assert_eq!(key(1, u64::MAX).next(), Some(key(2, 0)));
        assert_eq!(key(u32::MAX, u64::MAX).next(), None);
    }
}
