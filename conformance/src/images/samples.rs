//! The images that the suites pull.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Compression, Documents, Entry, Image, ImageBuilder, Index, Layer, SparseForm};

/// Where Debian's `busybox-static` puts its one program.
const BUSYBOX: &str = "/bin/busybox";

/// A small system: busybox, with a hard link for each of its applets.
///
/// # Errors
/// When Debian's `busybox-static` is not installed.
pub fn busybox_layer() -> Result<Vec<u8>> {
    let program = fs::read(BUSYBOX).context("read /bin/busybox (Debian package busybox-static)")?;
    let applets = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .context("run busybox --list")?;
    let mut layer = Layer::of([Entry::dir("."), Entry::dir("bin")]);
    layer = layer.entry(Entry::file("bin/busybox", program).mode(0o755));
    for applet in String::from_utf8(applets.stdout)?
        .lines()
        .filter(|name| *name != "busybox")
    {
        layer = layer.entry(Entry::hard_link(format!("bin/{applet}"), "bin/busybox").mode(0o755));
    }
    for directory in ["dev", "etc", "proc", "root", "sys", "var", "var/www"] {
        layer = layer.entry(Entry::dir(directory));
    }
    layer = layer
        .entry(Entry::dir("tmp").mode(0o1777))
        .entry(Entry::file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/var/www:/bin/sh\n",
        ))
        .entry(Entry::file(
            "etc/group",
            "root:x:0:\nweb:x:44:\nlog:x:55:web,other\naudio:x:66:web\n",
        ));
    Ok(layer.finish())
}

/// The small system as an image of one layer.
///
/// # Errors
/// As [`busybox_layer`].
pub fn busybox() -> Result<Image> {
    // Builders count a history's layers, which should be as many as there are.
    let history = json!([{"created": "2025-01-01T00:00:00Z", "created_by": "busybox"}]);
    let builder = ImageBuilder::new().top_level("history", history);
    Ok(builder.layer(&busybox_layer()?).build())
}

/// A layer of `files` files of `size` bytes each below `directory`, which
/// neither repeat nor compress well.
#[must_use]
pub fn filler_layer(directory: &str, files: usize, size: usize) -> Vec<u8> {
    let mut state = directory
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mut layer = Layer::of([Entry::dir("."), Entry::dir(directory)]);
    for number in 0..files {
        if number % 64 == 0 {
            layer = layer.entry(Entry::dir(format!("{directory}/{}", number / 64)));
        }
        let content: Vec<u8> = (0..size.div_ceil(8))
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Half of the bytes are zero, so that compression has some effect.
                (state & 0x00ff_00ff_00ff_00ff).to_le_bytes()
            })
            .take(size)
            .collect();
        layer = layer.entry(Entry::file(
            format!("{directory}/{}/{number}", number / 64),
            content,
        ));
    }
    layer.finish()
}

/// Four layers, one in each kind of compression: the small system, and fillers.
///
/// # Errors
/// As [`busybox_layer`].
pub fn multi_layer() -> Result<Image> {
    let image = ImageBuilder::new()
        .layer(&busybox_layer()?)
        .layer_in(Compression::Zstd, &filler_layer("zstd", 130, 3000))
        .layer_in(Compression::Plain, &filler_layer("plain", 5, 100_000))
        .layer_in(Compression::GzipMembers, &filler_layer("members", 70, 2000));
    Ok(image.build())
}

/// The small system for amd64 and, in name, for arm64, with `etc/arch` to tell.
///
/// # Errors
/// As [`busybox_layer`].
pub fn multi_architecture(documents: Documents) -> Result<Index> {
    let base = busybox_layer()?;
    let image = |architecture: &str, variant| {
        let mark = Layer::of([Entry::dir("etc"), Entry::file("etc/arch", architecture)]).finish();
        let builder = if documents == Documents::Docker {
            ImageBuilder::new().docker()
        } else {
            ImageBuilder::new()
        };
        builder
            .architecture(architecture, variant)
            .layer(&base)
            .layer(&mark)
            .build()
    };
    Ok(Index::of(
        documents,
        vec![image("arm64", Some("v8")), image("amd64", None)],
    ))
}

/// Two layers, of which the upper holds only a hard link to a file of the lower.
#[must_use]
pub fn cross_link() -> Image {
    let lower = Layer::of([
        Entry::dir("."),
        Entry::dir("link"),
        Entry::file("link/target", "lower"),
    ]);
    let upper = Layer::of([
        Entry::dir("link"),
        Entry::hard_link("link/across", "link/target"),
    ]);
    ImageBuilder::new()
        .layer(&lower.finish())
        .layer(&upper.finish())
        .build()
}

/// Three layers of whiteouts, opaque marks and changes of type.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table of entries")]
pub fn whiteouts() -> Image {
    let mut lower = Layer::of([Entry::dir("."), Entry::dir("ro").mode(0o555)]);
    for directory in [
        "keep", "gone", "gone/sub", "opq", "opq/old", "late", "late/old", "swap", "swap/dir",
        "link",
    ] {
        lower = lower.entry(Entry::dir(directory));
    }
    for name in [
        "keep/a",
        "gone/x",
        "gone/sub/y",
        "opq/old/1",
        "opq/2",
        "late/old/1",
        "late/2",
        "swap/dir/in",
        "swap/file",
        "link/target",
        "ro/f",
    ] {
        lower = lower.entry(Entry::file(name, name).owner(7, 8));
    }
    let lower = lower
        .entry(Entry::symlink("slink", "keep"))
        .entry(Entry::symlink("abslink", "/keep"));
    let middle = Layer::of([
        Entry::dir("."),
        Entry::whiteout("gone"),
        Entry::dir("opq").mode(0o700),
        Entry::opaque("opq"),
        Entry::file("opq/new", "new"),
        Entry::dir("late"),
        Entry::file("late/before", "before the mark"),
        Entry::opaque("late"),
        Entry::file("late/after", "after the mark"),
        Entry::dir("swap"),
        Entry::file("swap/dir", "a file now"),
        Entry::dir("swap/file"),
        Entry::file("swap/file/in", "a directory now"),
        Entry::dir("ro").mode(0o555),
        Entry::file("ro/g", "more"),
        Entry::dir("link"),
        Entry::hard_link("link/second", "link/target"),
    ]);
    let upper = Layer::gnu()
        .entry(Entry::dir("."))
        .entry(Entry::dir("link"))
        .entry(Entry::whiteout("link/target"))
        .entry(Entry::whiteout("never"))
        .entry(Entry::dir("gone"))
        .entry(Entry::file("gone/again", "back").owner(3_000_000, 3_000_001))
        .entry(Entry::dir("swap"))
        .entry(Entry::whiteout("swap/dir"))
        .entry(Entry::whiteout("slink"))
        .entry(Entry::dir("opq").mode(0o711))
        .entry(Entry::whiteout("opq/new"))
        .entry(Entry::file("g".repeat(200), "GNU's long name"));
    let image = ImageBuilder::new()
        .layer(&lower.finish())
        .layer(&middle.finish());
    image.layer(&upper.finish()).build()
}

/// One layer with every kind of file, name, owner, time and attribute.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table of entries")]
pub fn names_and_metadata() -> Image {
    let long = "n".repeat(250);
    let deep = format!("{}/{}", "d".repeat(120), "e".repeat(200));
    // VFS_CAP_REVISION_2 with the effective bit; cap_net_admin and cap_net_raw permitted.
    let capability = [
        1, 0, 0, 2, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = Layer::of([
        Entry::dir(".")
            .mode(0o751)
            .owner(11, 12)
            .mtime(1_000_000_000, 5),
        Entry::dir("x"),
        Entry::file("x/setuid", "s").mode(0o4755).owner(5, 6),
        Entry::file("x/setgid", "s").mode(0o2755).owner(5, 6),
        Entry::dir("x/sticky").mode(0o1777),
        Entry::dir("x/closed").mode(0o000),
        Entry::file("x/closed/f", "c"),
        Entry::file("x/capable", "c")
            .mode(0o755)
            .owner(9, 9)
            .xattr("security.capability", capability),
        Entry::file("x/attributes", "v")
            .xattr("user.demo", "plain")
            .xattr("user.bytes", [0, 0xff, b'\n', b'=', 0])
            .xattr("user.empty", "")
            .xattr("trusted.demo", "t"),
        Entry::dir("x/attributed").xattr("user.on-a-directory", "yes"),
        Entry::fifo("x/fifo").mode(0o666),
        Entry::file("x/empty", ""),
        Entry::file(format!("x/{long}"), "long"),
        Entry::dir("d".repeat(120)),
        Entry::dir(&deep),
        Entry::file(format!("{deep}/{long}"), "deep"),
        Entry::symlink(
            "x/long-link",
            format!("/{}/{}", "l".repeat(240), "m".repeat(240)),
        ),
        Entry::hard_link("x/long-hard-link", format!("{deep}/{long}")),
        Entry::file("x/new\nline", "n"),
        Entry::file("x/ lead trail ", "s"),
        Entry::file("x/big-owner", "u").owner(3_000_000, 4_000_000_000),
        Entry::symlink("x/owned-link", "nowhere")
            .owner(1000, 1001)
            .mtime(1_234_567_890, 7),
        Entry::file("x/fine-time", "t").mtime(1_612_325_106, 123_456_789),
        Entry::file("x/old", "t").mtime(-315_619_200, 500_000_000),
        Entry::file("x/future", "t").mtime(13_569_465_600, 0),
        Entry::dir("x/dated").mtime(1_111_111_111, 111_111_111),
        Entry::file("x/dated/later", "must not touch the directory's time"),
        Entry::dir("dev"),
        Entry::char_device("dev/null", 1, 3),
        Entry::block_device("dev/loop7", 7, 7)
            .mode(0o640)
            .owner(0, 6),
        Entry::char_device("dev/big", 511, 1_048_575),
    ]);
    // GNU headers take any byte in a name; PAX says that names are UTF-8.
    let bytes = Layer::gnu()
        .entry(Entry::dir("bytes"))
        .entry(Entry::file(b"bytes/latin1-\xe9\xff", "b"))
        .entry(Entry::symlink("bytes/link", b"to-\xe9"));
    ImageBuilder::new()
        .layer(&layer.finish())
        .layer(&bytes.finish())
        .build()
}

/// Files with holes, in each form that archivers write.
#[must_use]
pub fn sparse_files() -> Image {
    let mebibyte = 1 << 20;
    let parts: [(u64, &[u8]); 2] = [(0, b"head"), (3 * mebibyte, b"middle")];
    let pax = Layer::of([Entry::dir("."), Entry::dir("sparse")])
        .sparse_in(
            SparseForm::Pax10,
            &Entry::file("sparse/pax-1.0", ""),
            4 * mebibyte,
            &parts,
        )
        .sparse_in(
            SparseForm::Pax01,
            &Entry::file("sparse/pax-0.1", ""),
            4 * mebibyte,
            &parts,
        )
        .entry(Entry::file("sparse/after", "the next entry"));
    let gnu = Layer::gnu()
        .entry(Entry::dir("gnu"))
        .sparse(&Entry::file("gnu/old", ""), 4 * mebibyte, &parts)
        .entry(Entry::file("gnu/after", "the next entry"));
    ImageBuilder::new()
        .layer(&pax.finish())
        .layer(&gnu.finish())
        .build()
}
