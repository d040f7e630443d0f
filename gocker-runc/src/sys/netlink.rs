//! rtnetlink(7), as far as moving a network device needs it: requests as bytes, answers as bytes.
//!
//! ```text
//! nlmsghdr  length u32 | type u16 | flags u16 | sequence u32 | port u32
//! body      ifinfomsg or ifaddrmsg, then attributes: length u16 | type u16 | value, padded to 4
//! ```

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A socket in one network namespace, the one that its maker was in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

/// Whether the kernel is asked for one thing, or for all of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// For one, or to do something.
    One,
    /// For all.
    All,
}

const HEADER: usize = 16;
/// So much the kernel puts into one datagram at most, unless it is asked with more room.
const DATAGRAM: usize = 32 * 1024;

impl Netlink {
    /// Opens a socket in the calling process's network namespace.
    ///
    /// # Errors
    /// socket(2)'s.
    pub(crate) fn open() -> Result<Self, Errno> {
        socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map(Self)
    }

    /// Asks, and returns the bodies of the answers.
    ///
    /// # Errors
    /// The kernel's answer, or the socket's.
    pub(crate) fn ask(&self, kind: u16, ask: Ask, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let flags = match ask {
            Ask::One => libc::NLM_F_REQUEST | libc::NLM_F_ACK,
            Ask::All => libc::NLM_F_REQUEST | libc::NLM_F_DUMP,
        };
        let flags = u16::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            let datagram = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
            if read_answers(datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Collects the bodies of a datagram; true when it held the last one.
fn read_answers(mut datagram: &[u8], answers: &mut Vec<Vec<u8>>) -> Result<bool, Errno> {
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0).ok_or(Errno::EBADMSG)? as usize;
        let kind = i32::from(u16_at(datagram, 4).ok_or(Errno::EBADMSG)?);
        let body = datagram.get(HEADER..length).ok_or(Errno::EBADMSG)?;
        match kind {
            libc::NLMSG_ERROR => {
                let error = u32_at(body, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                return match error {
                    0 => Ok(true),
                    error => Err(Errno::from_raw(-error)),
                };
            }
            libc::NLMSG_DONE => return Ok(true),
            _ => answers.push(body.to_vec()),
        }
        datagram = datagram.get(padded(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// Appends an attribute.
pub(crate) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(padded(body.len()), 0);
}

/// The attributes of an answer whose own header is `skip` bytes long.
pub(crate) fn attributes(body: &[u8], skip: usize) -> Vec<(u16, Vec<u8>)> {
    let mut rest = body.get(skip..).unwrap_or_default();
    let mut all = Vec::new();
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            break;
        };
        // The two highest bits say how the value is coded.
        all.push((kind & 0x3fff, value.to_vec()));
        rest = rest.get(padded(length)..).unwrap_or_default();
    }
    all
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The number at an offset, in the machine's byte order.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let mut body = vec![9; 8];
        push_attribute(&mut body, 3, b"eth0\0");
        push_attribute(&mut body, 28, &7u32.to_ne_bytes());
        assert_eq!(body.len(), 8 + 12 + 8);
        let expected = vec![(3, b"eth0\0".to_vec()), (28, 7u32.to_ne_bytes().to_vec())];
        assert_eq!(attributes(&body, 8), expected);
        assert_eq!(attributes(&body, 100), []);
        assert_eq!(attributes(&[200, 0, 1, 0, 5], 0), []);
    }

    #[test]
    fn answers_end_with_an_error_or_the_last_one() {
        let message = |kind: i32, body: &[u8]| {
            let length = u32::try_from(HEADER + body.len()).expect("is short");
            let kind = u16::try_from(kind).expect("is short");
            let parts = [
                &length.to_ne_bytes()[..],
                &kind.to_ne_bytes(),
                &[0; 10],
                body,
            ];
            parts.concat()
        };
        let mut answers = Vec::new();
        let one = message(16, &[1, 2, 3, 4]);
        assert_eq!(read_answers(&one, &mut answers), Ok(false));
        let last = message(libc::NLMSG_DONE, &[0; 4]);
        assert_eq!(read_answers(&last, &mut answers), Ok(true));
        let error = message(libc::NLMSG_ERROR, &(-19i32).to_ne_bytes());
        assert_eq!(read_answers(&error, &mut answers), Err(Errno::ENODEV));
        assert_eq!(read_answers(&[1, 2, 3], &mut answers), Err(Errno::EBADMSG));
        assert_eq!(answers, [vec![1, 2, 3, 4]]);
    }
}
