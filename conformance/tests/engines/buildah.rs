//! buildah, and Podman's builder, which is buildah's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::binaries::installed;
use conformance::command::run_within;
use conformance::host::{CgroupLayout, cgroup_layout, is_root};
use conformance::{Output, needs, run_command, runtime};

use super::podman::{self, Podman};
use super::{IMAGE, serves_seccomp};

/// Each step shows or keeps something that only a container of its own gives.
const CONTAINERFILE: &str = "\
FROM localhost/conformance-busybox:test
ARG V=1
ENV A=b
WORKDIR /work
RUN echo built $A $V > file && id -u > uid && cat /proc/self/comm > comm
COPY Containerfile /work/copied
RUN --mount=type=tmpfs,target=/mnt awk '$2 == \"/mnt\" {print $3}' /proc/mounts > mounts
RUN --mount=type=bind,target=/context,src=. ls /context > context
RUN --mount=type=secret,id=word cat /run/secrets/word > secret
USER web
RUN id -u > /tmp/web
CMD cat file uid mounts context secret /tmp/web
";

const BUILT: &str = "built b 2\n0\ntmpfs\nContainerfile\nkept\n33\n";

fn is_here() -> bool {
    installed("buildah").is_some() && podman::is_here()
}

/// `buildah` with Podman's store, which knows the runtime by its environment.
fn buildah(podman: &Podman, args: &[&str]) -> Command {
    let mut command = Command::new("buildah");
    podman.store(&mut command);
    command
        .args(args)
        .env("BUILDAH_RUNTIME", &runtime().program)
        .env("BUILDAH_ISOLATION", "oci");
    command
}

#[track_caller]
fn finish(command: &mut Command) -> Output {
    run_within(command.stdin(Stdio::null()), Duration::from_secs(90))
}

/// A directory to build in, and the options that any builder takes.
fn context(podman: &Podman) -> (PathBuf, Vec<String>) {
    let context = podman.path().join("context");
    fs::create_dir(&context).expect("mkdir");
    fs::write(context.join("Containerfile"), CONTAINERFILE).expect("write");
    let secret = podman.path().join("word");
    fs::write(&secret, "kept\n").expect("write");
    let policy = podman.path().join("policy.json");
    let options = [
        "--isolation=oci".to_owned(),
        "--network=none".to_owned(),
        "--build-arg=V=2".to_owned(),
        format!("--secret=id=word,src={}", secret.display()),
        format!("--signature-policy={}", policy.display()),
        format!("--cgroup-parent={}/build", podman.cgroup()),
        // As Podman: what the hard limits of this process allow.
        "--ulimit=nofile=1024:1024".to_owned(),
    ];
    (context, options.into())
}

#[test]
fn buildah_and_podman_build_images() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian packages buildah and podman");
    needs!(serves_seccomp(), "needs a runtime that serves seccomp");
    let podman = Podman::new();
    let (context, options) = context(&podman);
    let mut by_podman = podman.command(&["build", "--tag", "localhost/by-podman"]);
    finish(by_podman.args(&options).arg(&context)).success();
    let mut by_buildah = buildah(&podman, &["bud", "--tag", "localhost/by-buildah"]);
    by_buildah.env_remove("BUILDAH_RUNTIME").arg("--runtime");
    by_buildah.arg(&runtime().program).args(&options);
    finish(by_buildah.arg(&context)).success();
    for image in ["localhost/by-podman", "localhost/by-buildah"] {
        let run = [
            "run",
            "--rm",
            "--network",
            "none",
            "--cgroup-parent",
            podman.cgroup(),
            image,
        ];
        assert_eq!(
            finish(&mut podman.command(&run)).success(),
            BUILT,
            "{image}"
        );
    }

    fs::write(
        context.join("Containerfile"),
        format!("FROM {IMAGE}\nRUN exit 42\n"),
    )
    .expect("write");
    let mut failing = buildah(&podman, &["bud"]);
    let output = finish(failing.args(&options).arg(&context));
    assert!(output.failure().contains("exit status 42"), "{output}");
    podman.assert_nothing_left();
}

#[test]
fn buildah_runs_commands_in_a_working_container() {
    needs!(is_root(), "needs root");
    needs!(is_here(), "needs the Debian packages buildah and podman");
    needs!(serves_seccomp(), "needs a runtime that serves seccomp");
    let podman = Podman::new();
    let policy = podman.path().join("policy.json");
    let mut from = buildah(
        &podman,
        &["from", "--name", "work", "--memory", "64m", "--ulimit"],
    );
    from.arg("nofile=100:100")
        .arg("--signature-policy")
        .arg(policy);
    from.arg(format!("--cgroup-parent={}/work", podman.cgroup()));
    assert_eq!(run_command(from.arg(IMAGE)).success(), "work\n");
    let run = |options: &[&str], command: &[&str]| {
        let args = [&["run", "--network", "none"], options, &["work"], command].concat();
        finish(&mut buildah(&podman, &args))
    };
    let file = match cgroup_layout() {
        CgroupLayout::V1 => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        CgroupLayout::V2 => "/sys/fs/cgroup/memory.max",
    };
    let script = format!("ulimit -n; cat {file}; touch /kept");
    assert_eq!(
        run(&[], &["sh", "-c", &script]).success(),
        "100\n67108864\n"
    );
    let kept = run(&[], &["sh", "-c", "test -e /kept && exit 7"]);
    assert_eq!(kept.code(), 7, "{kept}");
    let missing = run(&[], &["nosuchprogram"]);
    let words = "exec: \"nosuchprogram\": executable file not found in $PATH";
    if runtime().kind == conformance::Kind::Gocker {
        assert!(missing.failure().contains(words), "{missing}");
    }

    let volume = podman.path().join("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "mounted\n").expect("write");
    let volume = format!("{}:/data:ro", volume.display());
    let options = [
        "--volume",
        &volume,
        "--user",
        "web",
        "--hostname",
        "named",
        "--env",
        "X=y",
    ];
    let capability = ["--cap-add", "CAP_NET_ADMIN"];
    let script = "cat /data/file; id -u; hostname; echo $X; grep CapBnd /proc/self/status";
    let output = run(
        &[options.as_slice(), &capability].concat(),
        &["sh", "-c", script],
    );
    let expected = "mounted\n33\nnamed\ny\nCapBnd:\t00000000a80435fb\n";
    assert_eq!(output.success(), expected);
    let terminal = run(&["--terminal"], &["tty"]);
    assert!(terminal.success().starts_with("/dev/pts/"), "{terminal}");
    run_command(&mut buildah(&podman, &["rm", "work"])).success();
    podman.assert_nothing_left();
}
