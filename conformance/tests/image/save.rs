//! `save`: archives and directories that skopeo, Podman and umoci read, the same bytes each time.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use conformance::command::spawn_on;
use conformance::crash_points::has_strace;
use conformance::image_tools::{Podman, skopeo_copy};
use conformance::images::Image;
use conformance::{Output, Registry, StoreRoot, needs, run_command, umoci};

use super::{assert_same_trees, corpus, made_store, rootfs, small_image};

/// A store that has pulled `image` with its blobs.
#[track_caller]
fn pulled(registry: &Registry, image: &Image, name: &str) -> (StoreRoot, String) {
    let store = StoreRoot::new().unwrap();
    let reference = registry.push(image, name, "1").unwrap();
    store.run(&["pull", "--keep-blobs", &reference]).success();
    (store, reference)
}

/// Saves images to `path`, or fails to.
fn save_to(store: &StoreRoot, form: &str, references: &[&str], path: &Path) -> Output {
    let output = path.to_str().unwrap();
    let args = ["save", "--quiet", "--as", form, "--output", output];
    store.run(&[&args[..], references].concat())
}

#[track_caller]
fn save(store: &StoreRoot, form: &str, references: &[&str], name: &str) -> PathBuf {
    let path = store.beside(name);
    save_to(store, form, references, &path).success();
    path
}

/// Reads a saved image with skopeo, and unpacks it with umoci.
#[track_caller]
fn unpacked_by_others(store: &StoreRoot, transport: &str, path: &Path) -> PathBuf {
    let layout = store.beside(&format!("{transport}-layout"));
    let from = format!("{transport}:{}", path.display());
    skopeo_copy(&from, &format!("oci:{}:image", layout.display())).unwrap();
    umoci::unpack_layout(&layout, &store.beside(&format!("{transport}-tree"))).unwrap()
}

#[test]
fn every_form_is_read_by_skopeo_and_umoci_as_what_was_pulled() {
    let registry = Registry::start().unwrap();
    for (name, image) in corpus() {
        let (store, reference) = pulled(&registry, &image, name);
        let before = umoci::unpack(&reference, &store.beside("before"));
        for (form, transport) in [
            ("oci-archive", "oci-archive"),
            ("oci-dir", "oci"),
            ("docker-archive", "docker-archive"),
            ("docker-dir", "dir"),
        ] {
            let path = save(&store, form, &[&reference], form);
            let copied = store.beside(&format!("{form}-copied"));
            let from = format!("{transport}:{}", path.display());
            skopeo_copy(&from, &format!("dir:{}", copied.display())).unwrap();
            let manifest = fs::read(copied.join("manifest.json")).unwrap();
            // a docker-archive has no manifest of its own
            assert_eq!(
                manifest == *image.manifest.bytes,
                form != "docker-archive",
                "{name}: the manifest of {form}"
            );
            // Debian's umoci does not read zstd, which a docker-archive has not
            if name != "zstd" {
                let theirs = unpacked_by_others(&store, transport, &path);
                let before = before.as_ref().unwrap();
                assert_same_trees(&theirs, before, &format!("{name} as {form}"));
            }
        }
    }
}

#[test]
fn podman_loads_what_is_saved() {
    let registry = Registry::start().unwrap();
    for (name, image) in corpus() {
        let (store, reference) = pulled(&registry, &image, name);
        // of directories Podman makes names that it does not take itself
        for form in ["oci-archive", "docker-archive"] {
            let podman = Podman::new().unwrap();
            let path = save(&store, form, &[&reference], form);
            let id = podman.load(&path).unwrap();
            assert_eq!(
                format!("sha256:{id}"),
                image.config.digest,
                "{name} as {form}"
            );
            let names = podman.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
            assert_eq!(names.unwrap(), reference, "{name} as {form}");
        }
    }
}

#[test]
fn the_same_images_are_the_same_bytes() {
    let registry = Registry::start().unwrap();
    let (one, two) = (small_image("one"), small_image("two"));
    let saved = |form: &str| {
        let (store, first) = pulled(&registry, &one, "one");
        let second = registry.push(&two, "two", "1").unwrap();
        store.run(&["pull", "--keep-blobs", &second]).success();
        let path = save(&store, form, &[&first, &second], "archive");
        let bytes = fs::read(&path).unwrap();
        let mut command = store.command(&["save", "--as", form, &first, &second]);
        let output = command.output().unwrap();
        assert!(output.stdout == bytes, "{form}: standard output");
        bytes
    };
    for form in ["oci-archive", "docker-archive"] {
        assert!(saved(form) == saved(form), "{form}");
    }
}

#[test]
fn several_images_and_names_share_one_archive() {
    let registry = Registry::start().unwrap();
    let (one, two) = (small_image("one"), small_image("two"));
    let (store, first) = pulled(&registry, &one, "one");
    let second = registry.push(&two, "two", "1").unwrap();
    store.run(&["pull", "--keep-blobs", &second]).success();
    store.run(&["tag", &first, "localhost/again:3"]).success();
    let all = [first.as_str(), "localhost/again:3", &second];
    for form in ["oci-archive", "docker-archive"] {
        let path = save(&store, form, &all, form);
        for (name, image) in all.iter().zip([&one, &one, &two]) {
            let copied = store.beside(&format!("{form}-{}", name.replace('/', "-")));
            skopeo_copy(
                &format!("{form}:{}:{name}", path.display()),
                &format!("dir:{}", copied.display()),
            )
            .unwrap();
            let manifest = fs::read_to_string(copied.join("manifest.json")).unwrap();
            assert!(manifest.contains(&image.config.digest), "{name} of {form}");
        }
    }
    let two = [first.as_str(), &second];
    let refused = save_to(&store, "docker-dir", &two, &store.beside("directory"));
    assert!(
        refused.one_line_failure().contains("one image"),
        "{refused}"
    );
}

/// A directory on a file system in user space, in which every file has a name.
fn without_nameless_files(store: &StoreRoot) -> PathBuf {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
        let path = store.beside(name);
        fs::create_dir(&path).unwrap();
        path
    });
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    let options = [
        option("lowerdir", &lower),
        option("upperdir", &upper),
        option("workdir", &work),
    ];
    let mut command = Command::new("fuse-overlayfs");
    command.args(["-o", &options.join(",")]).arg(&merged);
    run_command(&mut command).success();
    let mut nameless = OpenOptions::new();
    nameless.write(true).custom_flags(libc::O_TMPFILE);
    let refused = nameless.open(&merged).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    merged
}

#[test]
fn what_is_saved_is_the_same_where_every_file_has_a_name() {
    let registry = Registry::start().unwrap();
    let (store, reference) = pulled(&registry, &small_image("named"), "image");
    let place = without_nameless_files(&store);
    for form in ["oci-archive", "docker-archive"] {
        let expected = fs::read(save(&store, form, &[&reference], form)).unwrap();
        let path = place.join(form);
        fs::write(&path, "of before").unwrap();
        save_to(&store, form, &[&reference], &path).success();
        assert!(fs::read(&path).unwrap() == expected, "{form}");
        fs::remove_file(&path).unwrap();
        assert_eq!(
            fs::read_dir(&place).unwrap().count(),
            0,
            "beside the {form}"
        );
    }
    let path = place.join("layout");
    save_to(&store, "oci-dir", &[&reference], &path).success();
    let tree = unpacked_by_others(&store, "oci", &path);
    assert_eq!(fs::read_to_string(tree.join("name")).unwrap(), "named");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_saved_whole_is_not_there_at_all() {
    let registry = Registry::start().unwrap();
    let store = StoreRoot::new().unwrap();
    let image = small_image("gone");
    let reference = registry.push(&image, "image", "1").unwrap();
    let tree = rootfs(&store, &reference, "one");
    drop(registry);
    assert!(tree.join("name").exists());
    let place = store.beside("place");
    fs::create_dir(&place).unwrap();
    let places = [place.clone(), without_nameless_files(&store)];
    let forms = ["oci-archive", "oci-dir", "docker-archive", "docker-dir"];
    for (place, form) in places
        .iter()
        .flat_map(|place| forms.map(|form| (place, form)))
    {
        let path = place.join(form);
        let output = save_to(&store, form, &[&reference], &path);
        let line = output.one_line_failure();
        assert!(line.contains(&image.layers[0].digest), "{line}");
        assert!(line.contains("--keep-blobs"), "{line}");
        assert_eq!(
            fs::read_dir(place).unwrap().count(),
            0,
            "{form} left something in {place:?}"
        );
    }
    let full = place.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "mine").unwrap();
    let output = save_to(&store, "oci-dir", &[&reference], &full);
    assert!(output.one_line_failure().contains("not empty"), "{output}");
    let output = store.run(&["save", "--format", "json", &reference]);
    assert!(output.one_line_failure().contains("--output"), "{output}");
}

#[test]
fn archives_are_neither_written_to_terminals_nor_read_from_them() {
    let store = made_store();
    for (args, words) in [
        (&["save", "image"][..], "name a file by --output"),
        (&["load"][..], "name a file by --input"),
    ] {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut child = spawn_on(pty.slave.as_fd(), &mut store.command(args));
        drop(pty.slave);
        let mut text = String::new();
        // EIO at the end, when the other side is closed
        if let Err(error) = File::from(pty.master).read_to_string(&mut text) {
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        }
        assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
        assert!(
            text.contains("is a terminal") && text.contains(words),
            "{text}"
        );
    }
}

#[test]
fn what_is_saved_is_on_disk_before_it_has_its_name_and_then_the_name() {
    needs!(has_strace(), "needs strace");
    let registry = Registry::start().unwrap();
    let (store, reference) = pulled(&registry, &small_image("image"), "image");
    let place = store.beside("synced");
    fs::create_dir(&place).unwrap();
    let trace = store.beside("strace");
    let strace = ["-f", "-y", "-qq", "-o", trace.to_str().unwrap()];
    let calls = ["-e", "trace=fsync,rename,renameat2"];
    for (form, before) in [
        ("oci-archive", &["(deleted)"][..]),
        (
            "oci-dir",
            &["/index.json>", "/oci-layout>", "/blobs>", "/sha256>"],
        ),
    ] {
        let path = place.join(form);
        let output = path.to_str().unwrap();
        let args = ["save", "-q", "--as", form, "-o", output, &reference];
        run_command(&mut store.traced(&[&strace[..], &calls].concat(), &args)).success();
        let log = fs::read_to_string(&trace).unwrap();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("/synced"))
            .collect();
        let renamed = lines.iter().position(|line| line.contains("rename"));
        let (earlier, later) = lines.split_at(renamed.expect(&log));
        let is_synced = |lines: &[&str], end: &str| {
            lines
                .iter()
                .any(|line| line.contains("fsync") && line.contains(end))
        };
        for end in before {
            assert!(is_synced(earlier, end), "{end}: {log}");
        }
        assert!(is_synced(later, "/synced>"), "{log}");
    }
}
