//! The tags of a repository, page by page.
//!
//! Spec: distribution-spec spec.md#listing-tags

use std::collections::BTreeSet;
use std::io::Read;

use reqwest::Url;
use reqwest::blocking::Response;
use reqwest::header::LINK;
use serde::Deserialize;

use super::answer::printable;
use super::authorize::{Access, Scope};
use super::endpoint::{Endpoint, Named};
use super::transport::{Get, broken};
use super::{Client, RegistryError};
use crate::reference::{Reference, is_tag};

/// How many are asked for at once; a registry may give fewer.
const PAGE: usize = 1000;
/// The most bytes of one page.
const PAGE_LIMIT: u64 = 4 << 20;
/// The most tags of one repository.
const MOST_TAGS: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of the repository of `reference`, in alphabetical order. Its registry itself is
    /// asked, for a mirror may know only what it was asked for.
    ///
    /// # Errors
    /// If the registry does not answer, or not with tags.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let inner = &self.inner;
        let endpoints = inner.settings.own_endpoints(reference)?;
        inner.at_registry(&endpoints, |endpoint| self.all_pages(endpoint))
    }

    fn all_pages(&self, endpoint: &Endpoint) -> Result<Vec<String>, RegistryError> {
        let mut tags = BTreeSet::new();
        let mut next = Some(endpoint.url(&format!("tags/list?n={PAGE}")));
        while let Some(url) = next {
            let wrong = |reason: String| RegistryError::Tags {
                path: url.path().to_owned(),
                reason,
            };
            let (page, following) = self.inner.retry.run(|| self.page(endpoint, &url))?;
            let before = tags.len();
            for tag in page.tags.unwrap_or_default() {
                if !is_tag(&tag) {
                    return Err(wrong(format!("{:?} is not a tag", printable(&tag))));
                }
                tags.insert(tag);
            }
            if tags.len() > MOST_TAGS {
                return Err(wrong(format!("has more than {MOST_TAGS} tags")));
            }
            if following.is_some() && tags.len() == before {
                return Err(wrong("goes on without another tag".to_owned()));
            }
            next = following;
        }
        Ok(tags.into_iter().collect())
    }

    /// One page, and the address of the next.
    fn page(&self, endpoint: &Endpoint, url: &Url) -> Result<(Page, Option<Url>), RegistryError> {
        let access = Access {
            endpoint,
            scope: Scope::Pull,
        };
        let get = Get::document(Named::Tag, "application/json");
        let inner = &self.inner;
        let response = inner.authorized(access, url, "GET", |header| {
            inner.transport.get(endpoint, url, header, &get)
        })?;
        let following = next_page(url, &response)?;
        let mut body = Vec::new();
        let read = response.take(PAGE_LIMIT + 1).read_to_end(&mut body);
        read.map_err(|error| broken("GET", url, &error))?;
        let path = || url.path().to_owned();
        if body.len() as u64 > PAGE_LIMIT {
            let (what, limit) = (path(), PAGE_LIMIT);
            return Err(RegistryError::TooLarge { what, limit });
        }
        let page = serde_json::from_slice(&body).map_err(|_| RegistryError::Tags {
            path: path(),
            reason: "the answer is no list of tags in JSON".to_owned(),
        })?;
        Ok((page, following))
    }
}

/// The page that a `Link` names. It gets the credentials, too, so it is the same list.
fn next_page(url: &Url, response: &Response) -> Result<Option<Url>, RegistryError> {
    let header = response.headers().get(LINK);
    let Some(target) = header.and_then(|value| next_link(value.to_str().ok()?)) else {
        return Ok(None);
    };
    let next = url.join(target).ok().filter(|next| {
        next.origin() == url.origin() && next.path() == url.path() && next.username().is_empty()
    });
    let wrong = || RegistryError::Tags {
        path: url.path().to_owned(),
        reason: format!("the next page is said to be {:?}", printable(target)),
    };
    next.map(Some).ok_or_else(wrong)
}

/// The target of the link whose relation is `next`.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let mut parameters = after[..end].split([';', ',']).map(str::trim);
        let is_next = parameters.any(|parameter| {
            let value = parameter.strip_prefix("rel=").unwrap_or_default();
            value
                .trim_matches('"')
                .split(' ')
                .any(|word| word == "next")
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let cases = [
            (
                r#"</v2/a/tags/list?last=x&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            (r#"<a>; rel="prev", <b>; rel="next""#, Some("b")),
            ("<a>; rel=next", Some("a")),
            ("<a>; rel=\"last\"", None),
            ("<a", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }
}
