//! The parameters of new file systems: config.md#mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use conformance::host::{enter_private_mounts, is_root};
use conformance::{TestBundle, needs, peer_differs};
use serde_json::{Value, json};

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).expect("mkdir");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_tmpfs_has_the_mode_of_the_directory_that_it_hides_unless_told_otherwise() {
    needs!(is_root(), "needs root");
    peer_differs!(Crun, "it keeps the mode of the new file system");
    peer_differs!(Runc, "Debian's overrides the mode that the options name");
    for copy_up in ["rw", "tmpcopyup"] {
        let script = "stat -c %a /there /new; stat -c '%a %u:%g' /told";
        let bundle = TestBundle::shell(script)
            .mount(tmpfs("/there", &[copy_up]))
            .mount(tmpfs("/new", &[copy_up]))
            .mount(tmpfs("/told", &[copy_up, "mode=1770", "uid=7", "gid=8"]));
        for name in ["there", "told"] {
            directory(&bundle.rootfs().join(name), 0o2711);
        }
        assert_eq!(bundle.run_ok(), "2711\n1777\n1770 7:8\n", "with {copy_up}");
    }
}

/// As engines ask for with images of many layers.
#[test]
fn an_overlay_may_have_more_layers_than_one_parameter_of_the_new_mount_api_holds() {
    needs!(is_root(), "needs root");
    enter_private_mounts();
    let bundle = TestBundle::shell(
        "cat /over/1 /over/9; grep -c ' /over ro,nosuid,nodev,' /proc/self/mountinfo",
    );
    let layers: Vec<_> = (0..10)
        .map(|number: u8| {
            let layer = bundle
                .scratch()
                .join(format!("{number}-{}", "x".repeat(40)));
            directory(&layer, 0o755);
            fs::write(layer.join(number.to_string()), format!("{number}\n")).expect("write");
            layer.to_string_lossy().into_owned()
        })
        .collect();
    let overlay = |lower: &str, more: &[&str]| {
        let lower = format!("lowerdir={lower}");
        let options = [&[lower.as_str(), "ro", "nosuid", "nodev", "rprivate"], more].concat();
        json!({"destination": "/over", "type": "overlay", "source": "overlay", "options": options})
    };
    let bundle = bundle.mount(overlay(&layers.join(":"), &[]));
    assert_eq!(bundle.run_ok(), "1\n9\n1\n");
}

#[test]
fn more_parameters_than_the_kernel_reads_are_refused() {
    needs!(is_root(), "needs root");
    peer_differs!(Runc | Crun, "their kernel cuts them silently");
    let lower = format!("lowerdir={}", "/tmp:".repeat(1000));
    let overlay = json!({
        "destination": "/over", "type": "overlay", "source": "overlay", "options": [lower],
    });
    let bundle = TestBundle::new().mount(overlay);
    let output = bundle.run();
    let line = output.one_line_failure();
    assert!(
        line.contains("\"/over\"") && line.contains("E2BIG"),
        "{output}"
    );
    bundle.assert_nothing_left();
}
