//! A cold pull to a ready root file system, beside podman and skopeo + umoci.
//!
//! ```text
//! cargo bench -p conformance --bench pull        3 rounds
//! ROUNDS=9 cargo bench -p conformance --bench pull
//! ```
//!
//! Every tool has an empty store of its own in each round, and the tools take
//! turns, so that a busy moment of the machine meets all of them. CPU is user
//! and system time of the tool and all that it started and waited for; what the
//! kernel's own threads write back later is in nobody's account.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conformance::images::{self, ImageBuilder};
use conformance::store_root::wait_with_peak;
use conformance::umoci::run;
use conformance::{Registry, StoreRoot, binaries};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cpu: Duration,
    wall: Duration,
    peak_kib: u64,
}

/// A tool by its name, and the commands that make a root file system with it.
type Tool = (&'static str, fn(&StoreRoot, &str) -> Vec<Command>);

const TOOLS: [Tool; 3] = [
    ("gocker-image", gocker_image),
    ("podman", podman),
    ("skopeo + umoci", skopeo_and_umoci),
];

fn main() -> Result<()> {
    let rounds: usize = env::var("ROUNDS")
        .map_or(Ok(3), |text| text.parse())
        .context("ROUNDS")?;
    let registry = Registry::start()?;
    let reference = push_image(&registry)?;
    let first = ImageBuilder::new()
        .layer(&images::filler_layer("first", 1, 1))
        .build();
    let first = registry.push(&first, "first", "latest")?;
    let mut costs: [Vec<Cost>; TOOLS.len()] = Default::default();
    for round in 0..rounds {
        for turn in 0..TOOLS.len() {
            let tool = (round + turn) % TOOLS.len();
            let store = StoreRoot::new()?;
            let (name, commands) = TOOLS[tool];
            // The store itself is made before the clock starts.
            run(&mut store.command(&["pull", "--quiet", &first]))?;
            nix::unistd::sync();
            let cost = measure(commands(&store, &reference)).with_context(|| name.to_owned())?;
            costs[tool].push(cost);
            clean_up(&store)?;
        }
    }
    print_table(&costs);
    Ok(())
}

/// A system of seven layers: Debian's, where it can be made, and files of all
/// sizes over it.
fn push_image(registry: &Registry) -> Result<String> {
    let mut builder = ImageBuilder::new();
    match images::debian() {
        Ok(debian) => {
            let config: serde_json::Value = serde_json::from_slice(&debian.config.bytes)?;
            let diff_id = config["rootfs"]["diff_ids"][0]
                .as_str()
                .context("a diff id")?
                .to_owned();
            let sent = debian.layers[0].bytes.to_vec();
            builder = builder.layer_of(images::Compression::Gzip, sent, diff_id);
        }
        Err(error) => {
            eprintln!("without a layer of Debian: {error:#}");
            builder = builder.layer(&images::busybox_layer()?);
        }
    }
    let fillers = [
        ("small", 4000, 800),
        ("medium", 1500, 9000),
        ("large", 40, 600_000),
        ("code", 2000, 4000),
    ];
    for (name, files, size) in fillers {
        builder = builder.layer(&images::filler_layer(name, files, size));
    }
    for name in ["last", "app"] {
        builder = builder.layer(&images::filler_layer(name, 200, 2000));
    }
    let image = builder.build();
    let bytes: usize = image.layers.iter().map(|layer| layer.bytes.len()).sum();
    println!(
        "{} layers, {} MB as sent, gzip, registry on loopback",
        image.layers.len(),
        bytes / 1_000_000
    );
    registry.push(&image, "bench", "latest")
}

fn gocker_image(store: &StoreRoot, reference: &str) -> Vec<Command> {
    vec![
        store.command(&["pull", "--quiet", reference]),
        store.command(&["bundle", reference, "--name", "bench"]),
    ]
}

fn podman(store: &StoreRoot, reference: &str) -> Vec<Command> {
    let mut base = Command::new("podman");
    base.arg("--root")
        .arg(store.beside("podman"))
        .arg("--runroot")
        .arg(store.beside("podman-run"));
    let mut pull = base;
    pull.args([
        "--storage-driver",
        "overlay",
        "pull",
        "--quiet",
        "--tls-verify=false",
        reference,
    ]);
    vec![pull]
}

fn skopeo_and_umoci(store: &StoreRoot, reference: &str) -> Vec<Command> {
    let layout = store.beside("layout");
    let mut copy = Command::new("skopeo");
    copy.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    ]);
    copy.arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:image", layout.display()));
    let mut unpack = Command::new("umoci");
    unpack
        .args(["raw", "unpack", "--image"])
        .arg(format!("{}:image", layout.display()));
    unpack.arg(store.beside("rootfs"));
    vec![copy, unpack]
}

/// Runs the commands one after another.
fn measure(commands: Vec<Command>) -> Result<Cost> {
    let (start, before) = (Instant::now(), getrusage(UsageWho::RUSAGE_CHILDREN)?);
    let mut peak_kib = 0;
    for mut command in commands {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let (status, peak) = wait_with_peak(&mut child)?;
        peak_kib = peak_kib.max(peak);
        ensure!(status.success(), "{command:?}: {status}");
    }
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(Cost {
        cpu: cpu(&after).saturating_sub(cpu(&before)),
        wall: start.elapsed(),
        peak_kib,
    })
}

fn cpu(usage: &Usage) -> Duration {
    let time = |value: TimeVal| {
        Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Podman's overlay leaves a mount at its own directory.
fn clean_up(store: &StoreRoot) -> Result<()> {
    let podman = store.beside("podman");
    conformance::leftovers::remove_mounts(&podman);
    if Path::new(&podman).exists() {
        fs::remove_dir_all(&podman).with_context(|| format!("remove {podman:?}"))?;
    }
    Ok(())
}

fn print_table(costs: &[Vec<Cost>; TOOLS.len()]) {
    let medians: Vec<Cost> = costs.iter().map(|own| median(own)).collect();
    let ours = medians[0];
    println!(
        "{:<16} {:>9} {:>7} {:>9} {:>7} {:>9}",
        "median", "CPU s", "ratio", "wall s", "ratio", "peak MB"
    );
    for ((name, _), cost) in TOOLS.iter().zip(&medians) {
        println!(
            "{name:<16} {:>9.2} {:>7.2} {:>9.2} {:>7.2} {:>9.1}",
            cost.cpu.as_secs_f64(),
            cost.cpu.as_secs_f64() / ours.cpu.as_secs_f64(),
            cost.wall.as_secs_f64(),
            cost.wall.as_secs_f64() / ours.wall.as_secs_f64(),
            cost.peak_kib as f64 / 1024.0,
        );
    }
    if let Some(program) = binaries::find("GOCKER_IMAGE", "gocker-image") {
        println!("gocker-image is {}", program.display());
    }
}

/// Each figure's own median.
fn median(costs: &[Cost]) -> Cost {
    fn middle<T: Ord + Copy>(costs: &[Cost], figure: impl Fn(&Cost) -> T) -> T {
        let mut figures: Vec<T> = costs.iter().map(figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2]
    }
    Cost {
        cpu: middle(costs, |cost| cost.cpu),
        wall: middle(costs, |cost| cost.wall),
        peak_kib: middle(costs, |cost| cost.peak_kib),
    }
}
