//! The arguments by which a container's root file system is limited.

use clap::Args;

use crate::cli::parse_size;

/// The least quota: a container that is made needs some room of its own.
const LEAST_BYTES: u64 = 1 << 20;

/// How much a container may add to its image.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct QuotaArgs {
    /// The most that the container may add to its image, at least 1m. The store must be on btrfs
    #[arg(long, value_name = "SIZE", value_parser = parse_quota)]
    quota: Option<u64>,
    /// The same, as size=SIZE
    #[arg(long, value_name = "size=SIZE", value_parser = parse_storage_option, conflicts_with = "quota")]
    storage_opt: Option<u64>,
}

impl QuotaArgs {
    /// The quota, if there is one.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.quota.or(self.storage_opt)
    }
}

fn parse_quota(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes < LEAST_BYTES => Err("the least is 1m".to_owned()),
        bytes => Ok(bytes),
    }
}

fn parse_storage_option(text: &str) -> Result<u64, String> {
    match text.split_once('=') {
        Some(("size", size)) => parse_quota(size),
        Some((key, _)) => Err(format!("there is no option {key:?}, only size")),
        None => Err("write size=SIZE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_sizes_of_at_least_one_mebibyte() {
        for (text, expected) in [
            ("1m", Some(1 << 20)),
            ("1048576", Some(1 << 20)),
            ("10GiB", Some(10 << 30)),
            ("1048575", None),
            ("0", None),
            ("-1m", None),
            ("much", None),
            ("", None),
            ("9999999999t", None),
        ] {
            assert_eq!(parse_quota(text).ok(), expected, "{text:?}");
            let option = format!("size={text}");
            assert_eq!(parse_storage_option(&option).ok(), expected, "{option:?}");
        }
        assert!(parse_storage_option("2m").is_err());
        let error = parse_storage_option("overlay.size=2m").unwrap_err();
        assert!(error.contains("overlay.size"), "{error}");
    }
}
