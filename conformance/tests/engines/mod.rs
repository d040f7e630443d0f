//! Engines that drive the runtime: containerd and Podman.
