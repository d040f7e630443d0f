//! `linux.netDevices`: network devices that go from the host to the container, with their
//! addresses.
//!
//! ```text
//! look up   the device and its addresses on the host        (before anything is made)
//! move      RTM_NEWLINK: another namespace, another name    (the kernel takes it down)
//! restore   RTM_NEWADDR for each address, then up
//! ```
//!
//! MTU, hardware address and the rest stay with the device. What is moved goes the same way back
//! when the container cannot be made. With the container's network namespace the kernel destroys
//! virtual devices, and gives real ones back to the machine.
//!
//! Spec: config-linux.md#network-devices

use std::os::fd::{AsRawFd, OwnedFd};

use bundles::FieldError;
use bundles::config::linux::net_devices::NetDevice;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use crate::sys::errno::describe;
use crate::sys::netlink::{Ask, Netlink, attributes, push_attribute, u32_at};

/// The devices, found on the host.
#[derive(Debug)]
pub(crate) struct NetDevices {
    host: Netlink,
    host_namespace: OwnedFd,
    found: Vec<Found>,
}

/// One device.
#[derive(Debug)]
struct Found {
    device: NetDevice,
    index: u32,
    is_up: bool,
    addresses: Vec<Vec<u8>>,
}

/// Devices that are in the container. Dropping it brings them back, unless they are to stay.
#[derive(Debug)]
pub(crate) struct Moved {
    devices: NetDevices,
    inside: Netlink,
    /// How many, from the first on.
    count: usize,
}

const NOT_OWNER: &str = "only root of the user namespace that owns its network may move it (EPERM)";

/// Lengths of ifinfomsg and ifaddrmsg.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

impl NetDevices {
    /// Finds the devices in the calling process's network namespace; None where there are none.
    ///
    /// # Errors
    /// The device that is missing or cannot be moved.
    pub(crate) fn find(devices: &[NetDevice]) -> Result<Option<Self>, FieldError> {
        if devices.is_empty() {
            return Ok(None);
        }
        let refuse = |errno| FieldError::new("linux.netDevices", describe(errno));
        let host = Netlink::open().map_err(refuse)?;
        let host_namespace = std::fs::File::open("/proc/self/ns/net")
            .map_err(|error| FieldError::new("linux.netDevices", error.to_string()))?;
        let addresses = host
            .ask(libc::RTM_GETADDR, Ask::All, &[0; ADDRESS_HEADER])
            .map_err(refuse)?;
        let found = devices.iter().map(|device| {
            let refuse = |problem: String| FieldError::new(field(device), problem);
            let (index, flags) = match look_up(&host, &device.host_name) {
                Err(Errno::ENODEV) => Err(refuse("no such network device".into())),
                answer => answer.map_err(|errno| refuse(describe(errno))),
            }?;
            if flags & libc::IFF_LOOPBACK.cast_unsigned() != 0 {
                return Err(refuse("a loopback device cannot be moved".into()));
            }
            // Nothing is changed by it, and only who may move it may ask.
            match host.ask(libc::RTM_NEWLINK, Ask::One, &link_header(index, 0)) {
                Err(Errno::EPERM) => Err(refuse(NOT_OWNER.into())),
                answer => answer.map_err(|errno| refuse(describe(errno))),
            }?;
            let own = addresses.iter().filter(|body| is_to_keep(body, index));
            Ok(Found {
                device: device.clone(),
                index,
                is_up: flags & libc::IFF_UP.cast_unsigned() != 0,
                addresses: own.cloned().collect(),
            })
        });
        let found = found.collect::<Result<_, _>>()?;
        Ok(Some(Self {
            host,
            host_namespace: host_namespace.into(),
            found,
        }))
    }

    /// Moves them all to the network namespace of the container, and brings them up.
    ///
    /// # Errors
    /// The device that cannot be moved; those before it are back by then.
    pub(crate) fn move_to(self, namespace: &OwnedFd) -> Result<Moved, FieldError> {
        let refuse = |problem: String| FieldError::new("linux.netDevices", problem);
        let inode = |fd| fstat(fd).map(|stat| stat.st_ino);
        if inode(namespace) == inode(&self.host_namespace) {
            let problem = "the network namespace that is joined is the one they are in";
            return Err(refuse(problem.into()));
        }
        let failed = |errno| refuse(describe(errno));
        let mut moved = Moved {
            inside: open_inside(namespace, &self.host_namespace).map_err(failed)?,
            devices: self,
            count: 0,
        };
        for one in &moved.devices.found {
            let name = &one.device.name;
            let refuse = |errno| match errno {
                Errno::EEXIST => FieldError::new(
                    field(&one.device),
                    format!("the container has a network device {name:?} already"),
                ),
                errno => FieldError::new(field(&one.device), describe(errno)),
            };
            // The kernel would move it first, and then see that the name is taken.
            match look_up(&moved.inside, name) {
                Ok(_) => Err(Errno::EEXIST),
                Err(Errno::ENODEV) => Ok(()),
                Err(errno) => Err(errno),
            }
            .and_then(|()| move_link(&moved.devices.host, one.index, namespace, name))
            .map_err(refuse)?;
            moved.count += 1;
            settle(&moved.inside, one, name, true).map_err(refuse)?;
        }
        Ok(moved)
    }
}

impl Moved {
    /// Leaves them in the container.
    pub(crate) fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for one in self.devices.found.iter().take(self.count).rev() {
            let host_name = &one.device.host_name;
            // Each is tried whatever became of the others; the error that led here is told.
            let back = look_up(&self.inside, &one.device.name)
                .and_then(|(index, _)| {
                    move_link(&self.inside, index, &self.devices.host_namespace, host_name)
                })
                .and_then(|()| settle(&self.devices.host, one, host_name, one.is_up));
            back.ok();
        }
    }
}

/// A socket in another namespace; the process is back in its own afterwards.
fn open_inside(namespace: &OwnedFd, own: &OwnedFd) -> Result<Netlink, Errno> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let inside = Netlink::open();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    inside
}

fn field(device: &NetDevice) -> String {
    format!("linux.netDevices.{}", device.host_name)
}

/// Index and flags of a device.
fn look_up(netlink: &Netlink, name: &str) -> Result<(u32, u32), Errno> {
    let mut body = vec![0; LINK_HEADER];
    push_name(&mut body, name);
    let answers = netlink.ask(libc::RTM_GETLINK, Ask::One, &body)?;
    let answer = answers.first().ok_or(Errno::ENODEV)?;
    let number = |offset| u32_at(answer, offset).ok_or(Errno::EBADMSG);
    Ok((number(4)?, number(8)?))
}

/// Addresses that somebody has given and that mean something beyond the link. Those that the
/// kernel or a router has made are made anew where the device comes up.
fn is_to_keep(body: &[u8], index: u32) -> bool {
    let scope = body.get(3).copied();
    u32_at(body, 4) == Some(index)
        && scope == Some(libc::RT_SCOPE_UNIVERSE)
        && flags_of(body) & libc::IFA_F_PERMANENT != 0
}

fn flags_of(body: &[u8]) -> u32 {
    let all = attributes(body, ADDRESS_HEADER);
    let long = all.iter().find(|(kind, _)| *kind == libc::IFA_FLAGS);
    long.and_then(|(_, value)| u32_at(value, 0))
        .or_else(|| body.get(2).copied().map(u32::from))
        .unwrap_or(0)
}

fn move_link(from: &Netlink, index: u32, to: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut body = link_header(index, 0);
    let fd = to.as_raw_fd().to_ne_bytes();
    push_attribute(&mut body, libc::IFLA_NET_NS_FD, &fd);
    push_name(&mut body, name);
    from.ask(libc::RTM_NEWLINK, Ask::One, &body).map(drop)
}

/// Gives a device that has come its addresses, and brings it up.
fn settle(netlink: &Netlink, one: &Found, name: &str, up: bool) -> Result<(), Errno> {
    // The number may have been taken there.
    let (index, _) = look_up(netlink, name)?;
    for address in &one.addresses {
        let body = address_of(address, index, name);
        match netlink.ask(libc::RTM_NEWADDR, Ask::One, &body) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    if up {
        let body = link_header(index, libc::IFF_UP.cast_unsigned());
        netlink.ask(libc::RTM_NEWLINK, Ask::One, &body)?;
    }
    Ok(())
}

/// `flags` are set, and no other ones are changed.
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn push_name(body: &mut Vec<u8>, name: &str) {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    push_attribute(body, libc::IFLA_IFNAME, &value);
}

/// An address as the kernel told it, for the device `index` of that name.
fn address_of(body: &[u8], index: u32, name: &str) -> Vec<u8> {
    let mut request = body.get(..4).unwrap_or_default().to_vec();
    request.extend(index.to_ne_bytes());
    for (kind, value) in attributes(body, ADDRESS_HEADER) {
        match kind {
            libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST | IFA_RT_PRIORITY => {
                push_attribute(&mut request, kind, &value);
            }
            libc::IFA_FLAGS => {
                // What it has gone through on the host is begun anew.
                let passing = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED;
                let flags = flags_of(body) & !passing;
                push_attribute(&mut request, kind, &flags.to_ne_bytes());
            }
            // The old name of the device, and perhaps ":" and more.
            libc::IFA_LABEL => {
                let text = String::from_utf8_lossy(&value);
                let more = text.trim_end_matches('\0').find(':').map(|at| &text[at..]);
                let label = format!("{name}{}", more.unwrap_or("\0")).into_bytes();
                if label.len() <= libc::IFNAMSIZ {
                    push_attribute(&mut request, kind, &label);
                }
            }
            _ => {}
        }
    }
    request
}

/// The metric of the route to an address's network.
const IFA_RT_PRIORITY: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1/8 on device 3.
    fn told(scope: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, 8, 0, scope, 3, 0, 0, 0];
        push_attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 1]);
        push_attribute(&mut body, libc::IFA_LABEL, b"old:1\0");
        push_attribute(&mut body, libc::IFA_FLAGS, &flags.to_ne_bytes());
        push_attribute(&mut body, libc::IFA_CACHEINFO, &[0; 16]);
        body
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lasting_addresses_of_wide_scope_are_kept() {
        let permanent = libc::IFA_F_PERMANENT;
        assert!(is_to_keep(&told(0, permanent), 3));
        assert!(!is_to_keep(&told(0, permanent), 4), "another device's");
        assert!(!is_to_keep(&told(253, permanent), 3), "of the link");
        assert!(!is_to_keep(&told(0, 0), 3), "lent");
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_given_anew() {
        let request = address_of(&told(0, 0x80 | libc::IFA_F_TENTATIVE), 7, "new");
        assert_eq!(request[..8], [2, 8, 0, 0, 7, 0, 0, 0]);
        let expected = [
            (libc::IFA_LOCAL, vec![10, 0, 0, 1]),
            (libc::IFA_LABEL, b"new:1\0".to_vec()),
            (libc::IFA_FLAGS, vec![0x80, 0, 0, 0]),
        ];
        assert_eq!(attributes(&request, 8), expected);
    }
}
