//! What resctrl says of a container's groups, in the form in which runc's `events` prints it.
//!
//! ```text
//! ROOT/info/L3/{cbm_mask,min_cbm_bits,num_closids}   info/MB/{bandwidth_gran,…}   schemata
//! GROUP/schemata    GROUP/mon_data/mon_L3_00/{llc_occupancy,mbm_total_bytes,mbm_local_bytes}
//! ```
//! What the processor does not have, and what is 0, is left out, as there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Groups;

/// The figures of a container; all empty for one without groups.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    /// One for each domain, in the kernel's order of names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Bandwidth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct CacheInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    cbm_mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_cbm_bits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_closids: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth_gran: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_linear: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bandwidth: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_closids: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Bandwidth {
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_local_bytes: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Occupancy {
    #[serde(skip_serializing_if = "Option::is_none")]
    llc_occupancy: Option<u64>,
}

impl Groups {
    /// What the groups use and may use at this moment. A file that is not there is something
    /// that this processor cannot tell.
    pub(crate) fn stats(&self) -> Stats {
        let info = self.root.join("info");
        let cache = Some(info.join("L3")).filter(|dir| dir.is_dir());
        let bandwidth = Some(info.join("MB")).filter(|dir| dir.is_dir());
        let (root, own) = (schemata(&self.root), schemata(&self.group));
        let domains = domains(self.monitor.as_ref().unwrap_or(&self.group));
        let has = |name: &str| domains.iter().any(|domain| domain.join(name).exists());
        let mut stats = Stats {
            l3_cache_info: cache.as_deref().map(|dir| CacheInfo {
                cbm_mask: text(dir, "cbm_mask"),
                min_cbm_bits: number(dir, "min_cbm_bits"),
                num_closids: number(dir, "num_closids"),
            }),
            mem_bw_info: bandwidth.as_deref().map(|dir| BandwidthInfo {
                bandwidth_gran: number(dir, "bandwidth_gran"),
                delay_linear: number(dir, "delay_linear"),
                min_bandwidth: number(dir, "min_bandwidth"),
                num_closids: number(dir, "num_closids"),
            }),
            l3_cache_schema_root: of_kind(&root, "L3"),
            l3_cache_schema: of_kind(&own, "L3"),
            mem_bw_schema_root: of_kind(&root, "MB"),
            mem_bw_schema: of_kind(&own, "MB"),
            ..Stats::default()
        };
        if has(TOTAL) || has(LOCAL) {
            let of_one = |domain: &PathBuf| Bandwidth {
                mbm_total_bytes: number(domain, TOTAL),
                mbm_local_bytes: number(domain, LOCAL),
            };
            stats.mbm_stats = domains.iter().map(of_one).collect();
        }
        if has(OCCUPANCY) {
            let of_one = |domain: &PathBuf| Occupancy {
                llc_occupancy: number(domain, OCCUPANCY),
            };
            stats.cmt_stats = domains.iter().map(of_one).collect();
        }
        stats
    }
}

const TOTAL: &str = "mbm_total_bytes";
const LOCAL: &str = "mbm_local_bytes";
const OCCUPANCY: &str = "llc_occupancy";

/// The directories of a group's figures: one for each cache.
fn domains(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group.join("mon_data"));
    let mut domains: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("mon_L3_")
        })
        .collect();
    domains.sort();
    domains
}

fn schemata(group: &Path) -> String {
    text(group, "schemata").unwrap_or_default()
}

/// The lines for one kind of share: `L3:0=f`, or `L3CODE:0=f` and `L3DATA:0=f`.
fn of_kind(schemata: &str, kind: &str) -> String {
    let lines = schemata.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| line.starts_with(kind)).collect();
    lines.join("\n")
}

fn text(dir: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// None for `Unavailable`, and for 0.
fn number(dir: &Path, file: &str) -> Option<u64> {
    let number = text(dir, file)?.parse().ok()?;
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "a tree of files and what is told of it"
    )]
    fn figures() {
        let root = tempfile::tempdir().expect("has a directory");
        for (file, text) in [
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "0\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("schemata", "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n"),
            ("gold/schemata", "    L3:0=f;1=f\n    MB:0=20;1=70\n"),
            (
                "gold/mon_groups/web/mon_data/mon_L3_00/llc_occupancy",
                "65536\n",
            ),
            (
                "gold/mon_groups/web/mon_data/mon_L3_00/mbm_total_bytes",
                "900\n",
            ),
            (
                "gold/mon_groups/web/mon_data/mon_L3_00/mbm_local_bytes",
                "400\n",
            ),
            (
                "gold/mon_groups/web/mon_data/mon_L3_01/llc_occupancy",
                "Unavailable\n",
            ),
            (
                "gold/mon_groups/web/mon_data/mon_L3_01/mbm_total_bytes",
                "7\n",
            ),
            (
                "gold/mon_groups/web/mon_data/mon_L3_01/mbm_local_bytes",
                "0\n",
            ),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("is made");
            fs::write(path, text).expect("is written");
        }
        let group = root.path().join("gold");
        let groups = Groups {
            root: root.path().to_owned(),
            monitor: Some(group.join("mon_groups/web")),
            group,
            is_own: false,
        };
        let expected = serde_json::json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=f;1=f",
            "mem_bw_info": {"bandwidth_gran": 10, "min_bandwidth": 10, "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0=20;1=70",
            "mbm_stats": [
                {"mbm_total_bytes": 900, "mbm_local_bytes": 400},
                {"mbm_total_bytes": 7},
            ],
            "cmt_stats": [{"llc_occupancy": 65536}, {}],
        });
        let found = serde_json::to_value(groups.stats()).expect("is JSON");
        assert_eq!(found, expected);
    }

    #[test]
    fn without_groups_there_is_nothing() {
        let found = serde_json::to_value(Stats::default()).expect("is JSON");
        assert_eq!(found, serde_json::json!({}));
    }
}
