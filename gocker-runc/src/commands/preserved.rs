//! `--preserve-fds`: the descriptors that a caller hands to the container's process.

use anyhow::{Context, bail};

/// Checks that the descriptors 3 to 3 + `count` - 1 are open, before this program opens any of
/// its own: one of those would go to the container in their place.
///
/// # Errors
/// The descriptor that is not open.
pub(super) fn check(count: u32) -> anyhow::Result<()> {
    let end = i32::try_from(count)
        .ok()
        .and_then(|count| count.checked_add(3));
    let end = end.with_context(|| format!("--preserve-fds {count}: too many"))?;
    for fd in 3..end {
        if !crate::sys::process::is_open(fd) {
            bail!("--preserve-fds {count}: descriptor {fd} is not open");
        }
    }
    Ok(())
}
