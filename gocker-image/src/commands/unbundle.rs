//! `unbundle`: removes bundles and their root file systems.

use anyhow::Context as _;

use super::Context;
use super::in_turn::in_turn;
use crate::cli::UnbundleArgs;
use crate::operations;
use crate::store::StoreError;

/// Removes the bundles that are named, in turn, until one cannot be.
pub(crate) fn unbundle(context: &Context, args: &UnbundleArgs) -> anyhow::Result<()> {
    let store = context.find_store()?;
    let unbundle = |name: &String| {
        let Some(store) = &store else {
            let missing = StoreError::NoBundle(name.clone());
            return Err(missing).with_context(|| format!("unbundle {name:?}"));
        };
        operations::unbundle(store, name)
    };
    in_turn(args.format, &args.bundles, unbundle, |record| {
        format!("removed bundle {}\n", record.id)
    })
}
