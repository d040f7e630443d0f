//! The maps of sparse files, in the four formats that GNU tar has written.
//!
//! ```text
//! old GNU   type 'S', 4 pairs in the header, then blocks of 21 pairs
//! PAX 0.0   GNU.sparse.offset and GNU.sparse.numbytes, repeated
//! PAX 0.1   GNU.sparse.map = "offset,length,offset,length,…"
//! PAX 1.0   GNU.sparse.major=1; the map is text in front of the content
//! ```
//!
//! Spec: GNU tar manual, "Storing Sparse Files"

use super::pax::decimal;
use super::tar_stream::{TarError, number};

/// More extents than any file system fragments a file into for an image.
const MAX_EXTENTS: u64 = 1 << 20;

/// A piece of a file that has content; between extents lie holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Adds the pairs of 12-byte numbers in `bytes`; an empty pair ends them.
pub(super) fn old_gnu(bytes: &[u8], extents: &mut Vec<Extent>) -> Result<(), TarError> {
    for pair in bytes.chunks_exact(24) {
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        let field = |bytes| {
            let number = number(bytes, "sparse map")?;
            u64::try_from(number).map_err(|_| TarError::Sparse)
        };
        extents.push(Extent {
            offset: field(&pair[..12])?,
            len: field(&pair[12..])?,
        });
        if extents.len() as u64 > MAX_EXTENTS {
            return Err(TarError::Sparse);
        }
    }
    Ok(())
}

/// Offsets and lengths by turns, as extents.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(TarError::Sparse);
    }
    let extent = |pair: &[u64]| Extent {
        offset: pair[0],
        len: pair[1],
    };
    Ok(numbers.chunks_exact(2).map(extent).collect())
}

/// Checks that `extents` are in order, lie within `size`, and take exactly
/// the `stored` bytes of content.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0;
    let mut sum = 0_u64;
    for extent in extents {
        if extent.offset < end {
            return Err(TarError::Sparse);
        }
        end = (extent.offset.checked_add(extent.len)).ok_or(TarError::Sparse)?;
        sum += extent.len;
    }
    if end > size || sum != stored {
        return Err(TarError::Sparse);
    }
    Ok(())
}

/// Collects the text map of format 1.0, block by block.
#[derive(Default)]
pub(super) struct MapReader {
    /// The number of extents, then their pairs.
    numbers: Vec<u64>,
    /// Digits of a number that a block's end cut.
    digits: Vec<u8>,
}

impl MapReader {
    pub(super) fn is_complete(&self) -> bool {
        (self.numbers.first()).is_some_and(|count| self.numbers.len() as u64 > 2 * count)
    }

    pub(super) fn pairs(&self) -> &[u64] {
        self.numbers.get(1..).unwrap_or_default()
    }

    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), TarError> {
        for byte in block {
            if self.is_complete() {
                return Ok(()); // zeros fill the last block
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or(TarError::Sparse)?;
            if self.numbers.is_empty() && number > MAX_EXTENTS {
                return Err(TarError::Sparse);
            }
            self.numbers.push(number);
            self.digits.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_map_may_be_cut_anywhere() {
        let text = b"2\n0\n512\n4096\n100\n\0\0\0";
        for cut in 0..text.len() {
            let mut map = MapReader::default();
            map.add(&text[..cut]).unwrap();
            map.add(&text[cut..]).unwrap();
            assert!(map.is_complete());
            assert_eq!(map.pairs(), [0, 512, 4096, 100]);
        }
        assert!(MapReader::default().add(b"1x\n").is_err());
        assert!(MapReader::default().add(b"99999999\n").is_err());
    }

    #[test]
    fn maps_that_overlap_or_overrun_are_errors() {
        let extents = |numbers: &[u64]| pairs(numbers).unwrap();
        check(&extents(&[0, 10, 20, 5]), 30, 15).unwrap();
        check(&extents(&[30, 0]), 30, 0).unwrap();
        assert!(check(&extents(&[0, 10, 5, 5]), 30, 15).is_err());
        assert!(check(&extents(&[0, 10, 28, 5]), 30, 15).is_err());
        assert!(check(&extents(&[0, 10]), 30, 11).is_err());
        assert!(check(&extents(&[u64::MAX, 10]), 30, 10).is_err());
        assert!(pairs(&[1]).is_err());
    }
}
