# What a change has to pass. `just check` needs no root; `just conformance` does.

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items
    cargo nextest run --workspace --exclude conformance
    cargo deny check

conformance *EXPRESSION:
    bash .ci/test {{EXPRESSION}}

bench:
    cargo build --release -p gocker-image
    cargo runtime
    cargo bench -p conformance --bench runtimes
    cargo bench -p conformance --bench pull

demo *IMAGE:
    bash .ci/demo {{IMAGE}}
