//! `docker build`, by the classic builder and by BuildKit: each step is a container.

use std::fs;

use conformance::{Output, needs};

use super::{Docker, IMAGE, WANTED, is_here};

/// The classic builder makes containers as `docker run` does; BuildKit runs the steps itself.
const BUILDERS: [&str; 2] = ["0", "1"];

fn build(docker: &Docker, builder: &str, dockerfile: &str, options: &[&str]) -> Output {
    let context = docker.at("context");
    fs::create_dir_all(&context).expect("mkdir");
    fs::write(context.join("Dockerfile"), dockerfile).expect("write");
    fs::write(context.join("input"), "of the context\n").expect("write");
    let mut command = docker.command(&["build", "--network=none", "--no-cache"]);
    command
        .env("DOCKER_BUILDKIT", builder)
        .args(options)
        .arg(context);
    conformance::command::run_within(&mut command, std::time::Duration::from_secs(60))
}

#[test]
fn docker_builds_an_image() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    let dockerfile = format!(
        "FROM {IMAGE} AS first\n\
         ARG WORD=default\n\
         ENV A=b\n\
         WORKDIR /made\n\
         COPY input .\n\
         RUN id -u >who && pwd >where && echo $WORD $A >words\n\
         RUN grep -E 'CapBnd|Seccomp:' /proc/self/status | cut -f2 >confined\n\
         USER web\n\
         RUN id -u >/tmp/who; ! touch /made/file\n\
         FROM {IMAGE}\n\
         COPY --from=first /made /made\n\
         COPY --from=first /tmp/who /made/web\n\
         RUN [\"chmod\", \"0640\", \"/made/who\"]\n\
         CMD cd /made; cat input who where words confined web; stat -c %a who\n"
    );
    for builder in BUILDERS {
        let options = ["--tag", "built", "--build-arg", "WORD=given"];
        build(&docker, builder, &dockerfile, &options).success();
        let told = docker.ok(&["run", "--rm", "--network=none", "built"]);
        let expected = "of the context\n0\n/made\ngiven b\n00000000a80425fb\n2\n33\n640";
        assert_eq!(told, expected, "builder {builder}");
    }
    docker.end();
}

#[test]
fn docker_tells_how_a_step_of_a_build_failed() {
    needs!(is_here(), "{WANTED}");
    let docker = Docker::start();
    for (step, classic, words) in [
        ("RUN echo so far; exit 7", 7, "7"),
        (
            "RUN [\"nosuchprogram\"]",
            1,
            "executable file not found in $PATH",
        ),
    ] {
        for builder in BUILDERS {
            let options = ["--progress=plain"];
            let output = build(
                &docker,
                builder,
                &format!("FROM {IMAGE}\n{step}\n"),
                &options,
            );
            let code = if builder == "0" { classic } else { 1 };
            assert_eq!(output.code(), code, "{output}");
            assert!(output.stderr.contains(words), "{output}");
        }
    }
    // The classic builder keeps the container of a step that failed.
    docker.ok(&["container", "prune", "--force"]);
    docker.end();
}
