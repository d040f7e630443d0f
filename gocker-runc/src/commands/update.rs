//! `update ID`

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::operations::update::{Rdt, update};

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Take all from this file, an object like linux.resources; - is stdin
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    resources: Option<PathBuf>,
    #[command(flatten)]
    single: Single,
    /// The schema of Intel's cache allocation
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// The schema of Intel's memory bandwidth allocation
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

/// One flag for each value.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Single {
    /// Block input and output against others, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u64>,
    /// The period of the processor quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds; -1 lifts the limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Quota that may be saved up, in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Processor time against others
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// The period of the real-time quota, in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// Real-time processor time in each period, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// The processors to run on
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// 1 to run only where nobody else wants to
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Memory, in bytes or with a unit such as m; -1 lifts the limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory to keep when it is short, in bytes or with a unit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together, in bytes or with a unit; -1 lifts the limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory of the kernel's own, which newer kernels do not limit
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    kernel_memory: Option<String>,
    /// Memory of TCP connections, which cgroup v2 does not limit
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    kernel_memory_tcp: Option<String>,
    /// How many tasks there may be; -1 lifts the limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

/// Changes the limits.
///
/// # Errors
/// A flag's value, and the operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let single = to_json(&args.single)?;
    let text = match &args.resources {
        Some(_) if !single.is_empty() => {
            bail!("--resources and flags for single values are two ways to say the same: give one")
        }
        Some(file) => read(file)?,
        None => Value::Object(single).to_string().into_bytes(),
    };
    let rdt = Rdt {
        l3_cache_schema: args.l3_cache_schema.as_deref(),
        mem_bw_schema: args.mem_bw_schema.as_deref(),
    };
    update(root, &args.id, &text, &rdt)?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut text);
        return read.map(|_| text).context("read stdin");
    }
    fs::read(file).with_context(|| format!("--resources {file:?}"))
}

/// The flags as `linux.resources` has them.
fn to_json(flags: &Single) -> anyhow::Result<Map<String, Value>> {
    let bytes = |flag: &str, text: &Option<String>| {
        let bytes = text.as_deref().map(|text| parse_bytes(flag, text));
        bytes.transpose()
    };
    let sections = [
        (
            "memory",
            [
                ("limit", json!(bytes("--memory", &flags.memory)?)),
                (
                    "reservation",
                    json!(bytes("--memory-reservation", &flags.memory_reservation)?),
                ),
                ("swap", json!(bytes("--memory-swap", &flags.memory_swap)?)),
                (
                    "kernel",
                    json!(bytes("--kernel-memory", &flags.kernel_memory)?),
                ),
                (
                    "kernelTCP",
                    json!(bytes("--kernel-memory-tcp", &flags.kernel_memory_tcp)?),
                ),
            ]
            .to_vec(),
        ),
        (
            "cpu",
            vec![
                ("shares", json!(flags.cpu_share)),
                ("quota", json!(flags.cpu_quota)),
                ("burst", json!(flags.cpu_burst)),
                ("period", json!(flags.cpu_period)),
                ("realtimeRuntime", json!(flags.cpu_rt_runtime)),
                ("realtimePeriod", json!(flags.cpu_rt_period)),
                ("cpus", json!(flags.cpuset_cpus)),
                ("mems", json!(flags.cpuset_mems)),
                ("idle", json!(flags.cpu_idle)),
            ],
        ),
        ("blockIO", vec![("weight", json!(flags.blkio_weight))]),
        // As a flag, 0 is what runc has for "not given".
        (
            "pids",
            vec![("limit", json!(flags.pids_limit.filter(|limit| *limit != 0)))],
        ),
    ];
    let mut all = Map::new();
    for (section, values) in sections {
        let given = values.into_iter().filter(|(_, value)| !value.is_null());
        let given: Map<String, Value> = given.map(|(name, value)| (name.into(), value)).collect();
        if !given.is_empty() {
            all.insert(section.into(), given.into());
        }
    }
    Ok(all)
}

/// A number of bytes, with a unit of 1024's powers or without; -1 for no limit.
fn parse_bytes(flag: &str, text: &str) -> anyhow::Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.len() < 2 => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        "p" => Some(50),
        _ => None,
    };
    let bytes = shift.and_then(|shift| scale(number, shift));
    bytes.with_context(|| {
        format!("{flag} {text:?} is neither a number of bytes, as 512m is one, nor -1")
    })
}

/// `number` times two to the power of `shift`, the fraction of a byte cut off.
fn scale(number: &str, shift: u32) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let unit = 1_i128 << shift;
    let whole = whole.parse::<i64>().ok()?;
    let parts: i128 = format!("0{fraction}").parse().ok()?;
    let decimals = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    i64::try_from(i128::from(whole) * unit + parts * unit / decimals).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("-1", -1),
            ("4096", 4096),
            ("512b", 512),
            ("3k", 3 << 10),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("2 GiB", 2 << 30),
            ("1tb", 1 << 40),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_bytes("--memory", text).expect(text), expected);
        }
        for bad in [
            "", "-2", "x", "1x", "m", "1mm", "1.2.3", ".5g", "1ib", "9999999p",
        ] {
            assert!(parse_bytes("--memory", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flags_become_resources() {
        let args = "update web --memory 1k --memory-swap -1 --cpu-quota=-1 --pids-limit 0 \
                    --cpuset-cpus 0-1 --blkio-weight 20";
        let args = Only::try_parse_from(args.split_whitespace()).expect("parses");
        let expected = json!({
            "memory": {"limit": 1024, "swap": -1},
            "cpu": {"quota": -1, "cpus": "0-1"},
            "blockIO": {"weight": 20},
        });
        let found = to_json(&args.args.single).expect("are in range");
        assert_eq!(Value::Object(found), expected);
    }
}
