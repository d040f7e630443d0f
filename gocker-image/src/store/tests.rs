//! A store on a real, small, loop-backed btrfs, and stores of copies.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::*;
use crate::btrfs::Access;
use crate::loop_device;

/// A root on some file system, and the store in it. Dropping it unmounts.
struct Place {
    dir: tempfile::TempDir,
    /// Beneath the directory or, for a store in a store, in the outer one.
    root: PathBuf,
    backing: Backing,
    /// How the store may keep its trees.
    kinds: &'static [Trees],
}

impl Place {
    /// One place for each way to keep trees; fewer, and said so, if this host cannot mount.
    fn each() -> Vec<Self> {
        let mut places = vec![Self::of(Backing::Copy, &[Trees::Copies, Trees::Reflinks])];
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            println!("skipped but for copies: needs root and loop devices");
            return places;
        }
        places.push(Self::of(Backing::Auto, &[Trees::Subvolumes]));
        // btrfs shares the blocks of files in directories, too
        let mut inner = Self::of(Backing::Auto, &[Trees::Subvolumes]);
        inner.root = inner.open().path().join("inner");
        (inner.backing, inner.kinds) = (Backing::Copy, &[Trees::Reflinks]);
        places.push(inner);
        places
    }

    fn of(backing: Backing, kinds: &'static [Trees]) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        Self {
            root: dir.path().join("root"),
            dir,
            backing,
            kinds,
        }
    }

    fn options(&self) -> Options {
        Options {
            root: self.root.clone(),
            loop_bytes: (self.backing == Backing::Auto).then_some(256 << 20),
            backing: self.backing,
        }
    }

    fn open(&self) -> Store {
        let store = Store::open(&self.options(), &|_| {}).unwrap();
        assert!(self.kinds.contains(&store.trees), "{:?}", store.trees);
        store
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A root on btrfs, and one of copies, has nothing mounted.
        drop(loop_device::release(&self.dir.path().join("root")));
    }
}

fn record(chain_id: &Digest, parent: Option<&Digest>) -> LayerRecord {
    LayerRecord {
        chain_id: chain_id.clone(),
        diff_id: chain_id.clone(),
        parent: parent.cloned(),
        blob: chain_id.clone(),
        entries: 1,
        bytes: 1,
        created: now(),
    }
}

fn to_make(store: &Store, chain_id: &Digest) -> ToMake {
    match store.claim(chain_id, &|| {}).unwrap() {
        Claim::ToMake(to_make) => to_make,
        Claim::Held(_) => panic!("{chain_id} is here"),
    }
}

/// Makes a layer with one file named like it.
fn make_layer(store: &Store, text: &str, parent: Option<&Digest>) -> Held {
    let chain_id = Digest::of(text.as_bytes());
    let draft = store
        .begin_layer(to_make(store, &chain_id), parent)
        .unwrap();
    let path = format!(
        "{}/.new-{}/{text}",
        store.path().join("layers").display(),
        layout::name(&chain_id)
    );
    fs::write(path, text).unwrap();
    let settled = draft.settle().unwrap();
    store.sync().unwrap();
    settled.record(record(&chain_id, parent)).unwrap()
}

fn make_image(store: &Store, text: &str, layers: &[&Digest]) -> ImageRecord {
    let (manifest, config) = (format!("manifest {text}"), format!("config {text}"));
    let image = ImageRecord {
        manifest: Digest::of(manifest.as_bytes()),
        config: Digest::of(config.as_bytes()),
        layers: layers.iter().map(|layer| (*layer).clone()).collect(),
        platform: "linux/amd64".to_owned(),
        transfer_bytes: 1,
        content_bytes: 1,
        created: None,
        pulled: now(),
    };
    store
        .put_blob(&image.manifest, manifest.as_bytes())
        .unwrap();
    store.put_blob(&image.config, config.as_bytes()).unwrap();
    store.put_image(&image).unwrap();
    let name = RefRecord {
        reference: text.to_owned(),
        manifest: image.manifest.clone(),
        resolved: image.manifest.clone(),
        updated: now(),
        origin: Origin::Name,
    };
    store.put_reference(&name).unwrap();
    image
}

fn names(store: &Store, directory: &str) -> Vec<String> {
    let names = record::entries(&store.path().join(directory)).unwrap();
    names.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_store_is_made_once_and_found_again() {
    for place in Place::each() {
        assert!(Store::find(&place.options()).unwrap().is_none());
        let said = Mutex::new(Vec::new());
        let announce = |text: &str| said.lock().unwrap().push(text.to_owned());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| Store::open(&place.options(), &|text| announce(text)).unwrap());
            }
        });
        let store = place.open();
        if store.path() != store.root {
            assert_eq!(said.lock().unwrap().len(), 1, "{said:?}");
        }
        assert_eq!(fs::metadata(store.path()).unwrap().mode() & 0o777, 0o700);
        let held = make_layer(&store, "a", None);
        drop((held, store));
        if loop_device::release(&place.options().root).is_ok() {
            let again = Store::find(&place.options()).unwrap().unwrap();
            assert!(
                again.layer(&Digest::of(b"a")).unwrap().is_some(),
                "a reboot lost a layer"
            );
        }
    }
}

#[test]
fn another_version_is_refused() {
    for place in Place::each() {
        let store = place.open();
        fs::write(store.path().join("meta.json"), "{\"version\": 99}").unwrap();
        drop(store);
        let error = Store::open(&place.options(), &|_| {}).unwrap_err();
        assert!(error.to_string().contains("has version 99"), "{error}");
    }
}

#[test]
fn a_layer_is_seen_when_it_is_recorded_and_not_before() {
    for place in Place::each() {
        let store = place.open();
        let chain_id = Digest::of(b"a");
        let draft = store.begin_layer(to_make(&store, &chain_id), None).unwrap();
        assert!(store.layer(&chain_id).unwrap().is_none());
        assert_eq!(store.sweep().unwrap(), 0, "a draft in use was swept");
        drop(draft);
        assert_eq!(
            names(&store, "layers"),
            [""; 0],
            "a draft that failed stayed"
        );

        let bottom = make_layer(&store, "a", None);
        let top = make_layer(&store, "b", Some(&bottom.record.chain_id));
        let root = store.open_layer(&top.record.chain_id).unwrap();
        let is_read_only = store.trees == Trees::Subvolumes;
        if is_read_only {
            assert_eq!(btrfs::access(root.as_fd()).unwrap(), Access::ReadOnly);
        }
        let path = store.layer_path(&top.record.chain_id);
        assert!(path.join("a").exists() && path.join("b").exists());
        assert_eq!(fs::write(path.join("c"), "").is_err(), is_read_only);
    }
}

#[test]
fn leftovers_of_a_crash_are_swept() {
    for place in Place::each() {
        let store = place.open();
        let layers = store.open_dir("layers").unwrap();
        let (a, b) = (
            layout::name(&Digest::of(b"a")),
            layout::name(&Digest::of(b"b")),
        );
        for name in [format!(".new-{a}"), a.clone(), b] {
            let trees = store.trees;
            let tree = trees.create(layers.as_fd(), OsStr::new(&name)).unwrap();
            trees.create(tree.as_fd(), OsStr::new("nested")).unwrap();
            trees.close(tree.as_fd()).unwrap();
        }
        let bundle = store.path().join("bundles/half");
        fs::create_dir(&bundle).unwrap();
        let bundle_dir = File::open(&bundle).unwrap();
        let rootfs = OsStr::new("rootfs");
        store.trees.create(bundle_dir.as_fd(), rootfs).unwrap();
        fs::write(bundle.join("config.json"), "{").unwrap();
        assert_eq!(store.sweep().unwrap(), 3);
        assert_eq!(names(&store, "layers"), [""; 0]);
        assert_eq!(names(&store, "bundles"), [""; 0]);
    }
}

#[test]
fn who_comes_second_waits_and_finds_it_made() {
    for place in Place::each() {
        let store = place.open();
        let chain_id = Digest::of(b"a");
        let claim = to_make(&store, &chain_id);
        std::thread::scope(|scope| {
            let (sender, waits) = std::sync::mpsc::channel();
            let (place, wanted) = (&place, chain_id.clone());
            let second = scope.spawn(move || {
                let store = place.open();
                let claim = store.claim(&wanted, &|| sender.send(()).unwrap()).unwrap();
                matches!(claim, Claim::Held(_))
            });
            waits.recv().unwrap();
            let settled = store.begin_layer(claim, None).unwrap().settle().unwrap();
            store.sync().unwrap();
            let held = settled.record(record(&chain_id, None)).unwrap();
            assert!(second.join().unwrap(), "the work was done twice");
            drop(held);
        });
    }
}

#[test]
fn bundles_are_whole_or_not_there() {
    for place in Place::each() {
        let store = place.open();
        let layer = make_layer(&store, "a", None);
        let top = Some(&layer.record.chain_id);
        let id: BundleId = "web".parse().unwrap();
        drop(store.begin_bundle(&id, top).unwrap());
        assert_eq!(names(&store, "bundles"), [""; 0]);

        let draft = store.begin_bundle(&id, top).unwrap();
        fs::write(draft.rootfs_path().join("new"), "x").unwrap();
        let record = BundleRecord {
            id: id.to_string(),
            reference: "a".to_owned(),
            manifest: Digest::of(b"m"),
            directory: draft.directory().to_owned(),
            rootfs: draft.rootfs_path(),
            args: vec!["sh".to_owned()],
            created: now(),
            owner: BundleOwner::User,
            quota_bytes: None,
        };
        draft.finish(&record).unwrap();
        assert!(matches!(
            store.begin_bundle(&id, top),
            Err(StoreError::BundleExists(_))
        ));
        assert_eq!(store.bundles().unwrap(), std::slice::from_ref(&record));
        assert!(
            !store
                .layer_path(&layer.record.chain_id)
                .join("new")
                .exists()
        );
        let used = store.hold_bundle(&id).unwrap();
        assert!(matches!(
            store.remove_bundle(&id),
            Err(StoreError::BundleBusy(_))
        ));
        drop(used);
        assert_eq!(store.remove_bundle(&id).unwrap(), record);
        assert!(matches!(
            store.remove_bundle(&id),
            Err(StoreError::NoBundle(_))
        ));
        assert_eq!(names(&store, "bundles"), [""; 0]);
    }
}

#[test]
fn only_what_nothing_refers_to_is_pruned() {
    for place in Place::each() {
        let store = place.open();
        let ids = ["base", "one", "two"].map(|text| Digest::of(text.as_bytes()));
        let [base, one, two] = &ids;
        let held = make_layer(&store, "base", None);
        drop((
            make_layer(&store, "one", Some(base)),
            make_layer(&store, "two", Some(base)),
        ));
        let first = make_image(&store, "first", &[base, one]);
        make_image(&store, "second", &[base, two]);
        assert_eq!(store.prune(Unused::Nameless).unwrap(), Removed::default());

        assert!(store.remove_reference("first").unwrap());
        let removed = store.remove_unused(&first.manifest).unwrap();
        assert_eq!(
            (removed.images, removed.layers),
            (vec![first.manifest.clone()], vec![one.clone()])
        );
        assert!(store.blob(&first.config).unwrap().is_none());
        assert_eq!(store.layers().unwrap().len(), 2);

        assert!(store.remove_reference("second").unwrap());
        let removed = store.prune(Unused::Nameless).unwrap();
        assert_eq!(
            removed.layers,
            std::slice::from_ref(two),
            "a layer in use was removed"
        );
        drop(held);
        assert_eq!(
            store.prune(Unused::Nameless).unwrap().layers,
            std::slice::from_ref(base)
        );
        assert_eq!(names(&store, "layers"), [""; 0]);
        assert_eq!(names(&store, "blobs/sha256"), [""; 0]);
    }
}

#[test]
fn a_damaged_blob_is_never_handed_out() {
    for place in Place::each() {
        let store = place.open();
        let digest = Digest::of(b"good");
        assert!(store.put_blob(&digest, b"bad").is_err());
        store.put_blob(&digest, b"good").unwrap();
        assert_eq!(store.blob(&digest).unwrap().unwrap(), b"good");
        fs::write(layout::blob(store.path(), &digest), "evil").unwrap();
        assert!(matches!(
            store.blob(&digest),
            Err(StoreError::Damaged { .. })
        ));
    }
}

#[test]
fn names_may_be_as_long_as_references_are() {
    for place in Place::each() {
        let store = place.open();
        let name = format!("example.org/{}:{}", "a/".repeat(100) + "b", "t".repeat(127));
        make_image(&store, &name, &[]);
        make_image(&store, &name, &[]);
        assert_eq!(store.references().unwrap().len(), 1);
        assert!(store.reference(&name).unwrap().is_some());
        assert!(store.reference("example.org/a").unwrap().is_none());
    }
}
