//! Serves an image made from Debian's `busybox-static` from a registry on loopback, prints its
//! reference, and ends when its standard input does.

use std::io::Read;

use anyhow::Result;
use conformance::images;
use conformance::registry::Registry;

fn main() -> Result<()> {
    let registry = Registry::start()?;
    registry.push(&images::busybox()?, "busybox", "latest")?;
    println!("{}", registry.reference("busybox:latest"));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
