//! Proxies, as the environment names them.

use std::process::Command;
use std::time::Duration;

use conformance::command::run_within;
use conformance::hostile::base64;
use conformance::{HostileRegistry, Output, StoreRoot};

use super::{made_store, small_image};

const HOST: &str = "registry.invalid";

/// A server that plays a proxy, before which a registry has an image.
fn proxy() -> HostileRegistry {
    let server = HostileRegistry::honest().unwrap();
    server.serve(&small_image("image"), "image", "latest");
    server
}

fn pull(store: &StoreRoot, reference: &str, variables: &[(&str, &str)]) -> Output {
    let args = ["--insecure-registry", HOST, "pull", "--quiet", reference];
    let mut command: Command = store.command(&args);
    command.envs(variables.iter().copied());
    run_within(&mut command, Duration::from_secs(60))
}

#[test]
fn http_goes_through_the_proxy_that_the_environment_names() {
    let (proxy, store) = (proxy(), made_store());
    let address = format!("http://{}", proxy.host());
    let reference = format!("{HOST}/image");
    pull(&store, &reference, &[("http_proxy", &address)]).success();
    let whole = format!("http://{HOST}/v2/image/manifests/latest");
    assert!(
        proxy
            .requests()
            .iter()
            .any(|request| request.target == whole)
    );
}

#[test]
fn the_user_of_a_proxy_is_told_to_the_proxy_and_to_nobody_else() {
    let (proxy, store) = (proxy(), made_store());
    let reference = format!("{HOST}/image");
    let address = format!("http://user:hidden@{}", proxy.host());
    pull(&store, &reference, &[("http_proxy", &address)]).success();
    let basic = format!("Basic {}", base64(b"user:hidden"));
    for request in proxy.requests() {
        assert_eq!(
            request.field("proxy-authorization"),
            Some(basic.as_str()),
            "{}",
            request.target
        );
        assert_eq!(request.field("authorization"), None, "{}", request.target);
    }
    let nowhere = "http://user:hidden@proxy.invalid:3128";
    let output = pull(&store, &reference, &[("http_proxy", nowhere)]);
    let line = output.one_line_failure();
    assert!(!line.contains("hidden"), "{line}");
}

#[test]
fn a_host_that_no_proxy_names_is_asked_directly() {
    let (proxy, store) = (proxy(), made_store());
    let address = format!("http://{}", proxy.host());
    let reference = format!("{HOST}/image");
    let variables = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", HOST)];
    pull(&store, &reference, &variables).one_line_failure();
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn https_asks_the_proxy_for_a_tunnel() {
    let (proxy, store) = (proxy(), made_store());
    let address = format!("http://{}", proxy.host());
    let reference = "other.invalid/image";
    pull(&store, reference, &[("HTTPS_PROXY", &address)]).one_line_failure();
    let asked = proxy.requests();
    assert!(!asked.is_empty());
    for request in asked {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("CONNECT", "other.invalid:443")
        );
    }
}

#[test]
fn loopback_is_never_asked_through_a_proxy() {
    let (proxy, registry, store) = (proxy(), proxy(), made_store());
    let address = format!("http://{}", proxy.host());
    let reference = format!("{}/image", registry.host());
    let variables = [
        ("HTTP_PROXY", address.as_str()),
        ("HTTPS_PROXY", address.as_str()),
    ];
    pull(&store, &reference, &variables).success();
    assert_eq!(proxy.requests().len(), 0);
}
