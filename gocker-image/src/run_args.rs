//! The arguments that every command has that makes a container of an image.

use std::path::PathBuf;

use clap::Args;

use crate::cli::parse_size;
use crate::operations::{
    CapabilityOption, DeviceOption, MountFlag, PairOption, RunOptions, SecurityOption, TmpfsFlag,
    Ulimit, VolumeFlag, parse_signal,
};

/// What is asked of a container beyond its image.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RunOptionArgs {
    /// Read variables of the environment from a file, one NAME=VALUE or NAME a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Mount a file or directory of the host's, with options as ro, rslave, noexec
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:OPTIONS]")]
    volume: Vec<VolumeFlag>,
    /// Mount what is described by fields: type=bind|tmpfs, src, dst, ro, bind-propagation,
    /// bind-nonrecursive, tmpfs-size, tmpfs-mode
    #[arg(long, value_name = "FIELD=VALUE,…")]
    mount: Vec<MountFlag>,
    /// Mount an empty tmpfs, with options as size=64m, mode=1777, exec
    #[arg(long, value_name = "DESTINATION[:OPTIONS]")]
    tmpfs: Vec<TmpfsFlag>,
    /// Make a device of the host's available
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    device: Vec<DeviceOption>,
    /// Allow a capability beyond the usual ones, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<CapabilityOption>,
    /// Take away a usual capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<CapabilityOption>,
    /// Let nothing be written to the root file system
    #[arg(long)]
    read_only: bool,
    /// Confine: no-new-privileges, seccomp=FILE|unconfined, apparmor=PROFILE, unmask=ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// Limit what single processes use, as nofile=1024:4096
    #[arg(long, visible_alias = "rlimit", value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<PairOption>,
    /// Set an annotation of config.json
    #[arg(long, visible_alias = "label", value_name = "NAME=VALUE")]
    annotation: Vec<PairOption>,
    /// Run in this group too, by number or by the image's name for it
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// The signal that asks the container to end
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    stop_signal: Option<String>,
    /// The most memory and swap together, or -1 for no limit of swap
    #[arg(long, value_name = "SIZE", value_parser = parse_swap, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// The memory that is left to it when others need some
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_reservation: Option<u64>,
    /// The weight of its processor time beside others, 1024 being usual
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// The processors, as 0-2,4
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    cpuset_cpus: Option<String>,
    /// The memory nodes, as 0,1
    #[arg(long, value_name = "LIST", value_parser = parse_list)]
    cpuset_mems: Option<String>,
    /// How much sooner than others it is ended when memory is short
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(-1000..=1000), allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    shm_size: Option<u64>,
}

impl RunOptionArgs {
    /// What was asked for, in the order of mounts that the help has.
    pub(crate) fn options(self) -> RunOptions {
        let volumes = self.volume.into_iter().map(|flag| flag.0);
        let mounts = self.mount.into_iter().map(|flag| flag.0);
        let tmpfs = self.tmpfs.into_iter().map(|flag| flag.0);
        RunOptions {
            mounts: volumes.chain(mounts).chain(tmpfs).collect(),
            devices: self.device,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            read_only: self.read_only,
            security: self.security_opt,
            ulimits: self.ulimit,
            sysctls: self.sysctl,
            annotations: self.annotation,
            groups: self.group_add,
            stop_signal: self.stop_signal,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation.map(u64::cast_signed),
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            oom_score_adj: self.oom_score_adj,
            shm_size: self.shm_size,
        }
    }
}

fn parse_swap(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        text => parse_size(text).map(u64::cast_signed),
    }
}

/// Numbers and ranges, as the kernel reads them.
fn parse_list(text: &str) -> Result<String, String> {
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_item = |item: &str| match item.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(item),
    };
    if text.split(',').all(is_item) {
        return Ok(text.to_owned());
    }
    Err("write numbers and ranges, as 0-2,4".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        for (text, good) in [
            ("0", true),
            ("0-2,4", true),
            ("", false),
            ("a", false),
            ("1-", false),
        ] {
            assert_eq!(parse_list(text).is_ok(), good, "{text:?}");
        }
        assert_eq!(parse_swap("-1"), Ok(-1));
        assert_eq!(parse_swap("1k"), Ok(1024));
        assert!(parse_swap("-2").is_err());
    }
}
