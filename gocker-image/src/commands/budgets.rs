//! How much a layer may bring, where a user wants it otherwise.

use clap::Args;

use crate::cli::parse_size;
use crate::unpack::Budgets;

/// Above them in the help. It is said of each, for it would hold for what follows them too.
const LIMITS: &str = "Limits of a layer";

/// Limits of what each layer may bring. They keep a hostile image from taking the machine.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BudgetArgs {
    /// The most bytes of content in one layer [default: 256g]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", value_parser = parse_size)]
    max_layer_size: Option<u64>,
    /// The most bytes of one file, holes included [default: 128g]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", value_parser = parse_size)]
    max_file_size: Option<u64>,
    /// The most entries in one layer [default: 8000000]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    max_entries: Option<u64>,
    /// The most components of one path [default: 256]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    max_path_depth: Option<usize>,
    /// The most bytes of extended attributes of one entry [default: 1m]
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", value_parser = parse_size)]
    max_xattr_size: Option<u64>,
    /// How many times larger than its blob a layer of 1 GiB or more may be [default: 1200]
    #[arg(long, help_heading = LIMITS, value_name = "N")]
    max_ratio: Option<u64>,
}

impl BudgetArgs {
    /// What is asked for, and otherwise the usual.
    pub(crate) fn budgets(&self) -> Budgets {
        let usual = Budgets::default();
        Budgets {
            bytes: self.max_layer_size.unwrap_or(usual.bytes),
            file_bytes: self.max_file_size.unwrap_or(usual.file_bytes),
            entries: self.max_entries.unwrap_or(usual.entries),
            path_depth: self.max_path_depth.unwrap_or(usual.path_depth),
            xattr_bytes: self.max_xattr_size.unwrap_or(usual.xattr_bytes),
            ratio: self.max_ratio.unwrap_or(usual.ratio),
        }
    }
}
