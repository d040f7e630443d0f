//! `tags`: what a registry has of a repository, page by page.
//!
//! Spec: distribution-spec spec.md#listing-tags

use std::fs;

use conformance::hostile::{Answer, base64};
use conformance::{HostileRegistry, Registry, StoreRoot};

use super::small_image;

/// A server that gives two tags a page, ten in all.
fn in_pages(link: fn(&str, usize) -> String) -> HostileRegistry {
    HostileRegistry::start(move |request| {
        let (path, query) = request.target.split_once('?')?;
        if path != "/v2/team/image/tags/list" {
            return None;
        }
        let last = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("last=v"));
        let first: usize = last.map_or(0, |last| last.parse::<usize>().unwrap() + 1);
        let tags: Vec<String> = (first..first + 2)
            .map(|number| format!("v{number}"))
            .collect();
        let body = serde_json::json!({"name": "team/image", "tags": tags});
        let answer = Answer::document("application/json", body.to_string());
        let host = request.field("host").unwrap_or_default();
        Some(if first < 8 {
            answer.field("Link", &link(host, first + 1))
        } else {
            answer
        })
    })
    .unwrap()
}

#[test]
fn a_real_registrys_tags_are_listed_in_order() {
    let (registry, store) = (Registry::start().unwrap(), StoreRoot::new().unwrap());
    for tag in ["b", "a", "1.0"] {
        registry
            .push(&small_image("image"), "team/image", tag)
            .unwrap();
    }
    let name = registry.reference("team/image");
    assert_eq!(store.run(&["tags", &name]).success(), "1.0\na\nb\n");
    let json = store.run(&["tags", &name, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(json.success()).unwrap();
    assert_eq!(json["tags"], serde_json::json!(["1.0", "a", "b"]));
    assert_eq!(json["repository"], name);
}

#[test]
fn all_pages_are_followed() {
    let links: [fn(&str, usize) -> String; 2] = [
        |_, last| format!("</v2/team/image/tags/list?last=v{last}&n=2>; rel=\"next\""),
        |host, last| format!("<http://{host}/v2/team/image/tags/list?last=v{last}>; rel=\"next\""),
    ];
    for link in links {
        let (server, store) = (in_pages(link), StoreRoot::new().unwrap());
        let output = store.run(&["tags", &format!("{}/team/image", server.host())]);
        assert_eq!(output.success().lines().count(), 10, "{output}");
        assert_eq!(server.requests().len(), 5);
    }
}

#[test]
fn a_next_page_elsewhere_is_refused_and_gets_no_credentials() {
    let thief = HostileRegistry::honest().unwrap();
    let elsewhere = thief.host().to_owned();
    let server = HostileRegistry::start(move |request| {
        if request.field("authorization").is_none() {
            let refusal = Answer::error(401, "UNAUTHORIZED", "who?");
            return Some(refusal.field("WWW-Authenticate", "Basic realm=\"r\""));
        }
        let link = format!("<http://{elsewhere}/v2/team/image/tags/list?n=1>; rel=\"next\"");
        let answer = Answer::document("application/json", r#"{"tags":["a"]}"#);
        Some(answer.field("Link", &link))
    })
    .unwrap();
    let store = StoreRoot::new().unwrap();
    let file = store.beside("auth.json");
    let auths = serde_json::json!({"auths": {server.host(): {"auth": base64(b"user:secret")}}});
    fs::write(&file, auths.to_string()).unwrap();
    let name = format!("{}/team/image", server.host());
    let output = store.run(&["--authfile", file.to_str().unwrap(), "tags", &name]);
    assert!(output.one_line_failure().contains("next page"), "{output}");
    assert_eq!(thief.requests().len(), 0);
}

#[test]
fn pages_without_end_and_names_that_are_no_tags_are_refused() {
    let cases = [
        (r#"{"tags":["a"]}"#, "goes on"),
        (r#"{"tags":["\u001b[31m"]}"#, "is not a tag"),
        ("{", "no list of tags"),
    ];
    for (body, words) in cases {
        let server = HostileRegistry::start(move |_| {
            let answer = Answer::document("application/json", body);
            Some(answer.field("Link", "</v2/team/image/tags/list?last=a>; rel=\"next\""))
        })
        .unwrap();
        let name = format!("{}/team/image", server.host());
        let output = StoreRoot::new().unwrap().run(&["tags", &name]);
        let line = output.one_line_failure();
        assert!(line.contains(words) && !line.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn a_reference_with_a_tag_is_not_a_repository() {
    let store = StoreRoot::new().unwrap();
    for name in ["127.0.0.1:5000/image:1", "a@sha256:00", "a.example/"] {
        assert_eq!(store.run(&["tags", name]).code(), 2, "{name}");
    }
}
