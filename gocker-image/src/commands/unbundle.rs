//! `unbundle`: removes bundles and their root file systems.

use anyhow::Context as _;

use super::Context;
use crate::cli::UnbundleArgs;
use crate::operations;
use crate::report;
use crate::store::StoreError;

/// Removes the bundles that are named, in turn, until one cannot be.
pub(crate) fn unbundle(context: &Context, args: &UnbundleArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    for name in &args.bundles {
        let Some(store) = &store else {
            let missing = StoreError::NoBundle(name.clone());
            return Err(missing).with_context(|| format!("unbundle {name:?}"));
        };
        let record = operations::unbundle(store, name)?;
        report::print(&format!("removed bundle {}\n", record.id))?;
    }
    Ok(())
}
