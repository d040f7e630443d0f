//! Commands that do the same to several things, one after the other.

use serde::Serialize;

use crate::cli::Format;
use crate::report;

/// Does `act` to each of `names` until it fails for one. What was done before is told all the
/// same: as text at once, as JSON in one list at the end.
pub(super) fn in_turn<N, T: Serialize>(
    format: Format,
    names: &[N],
    act: impl Fn(&N) -> anyhow::Result<T>,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    let mut done = Vec::new();
    let mut result = Ok(());
    for name in names {
        match act(name) {
            Ok(one) => {
                if format == Format::Text {
                    report::print(&text(&one))?;
                }
                done.push(one);
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if format == Format::Json {
        report::print(&report::json(&done)?)?;
    }
    result
}
