//! The challenges of a 401.
//!
//! Spec: RFC 9110 section 11.6.1, distribution's token specification

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// `bearer`, `basic`, …, in lower case.
    pub(super) scheme: String,
    /// Names in lower case, and values without quotes.
    pub(super) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads all challenges of one header, quoted commas included. Stops at what
/// is malformed and keeps what came before.
pub(super) fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (word, after) = take_token(rest);
        if word.is_empty() {
            break;
        }
        let after_space = after.trim_start_matches([' ', '\t']);
        let value = after_space
            .strip_prefix('=')
            .map(|text| text.trim_start_matches([' ', '\t']));
        match (value, challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = take_value(value) else {
                    break;
                };
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge {
                    scheme,
                    parameters: Vec::new(),
                });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn take_token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A token or a quoted string, and what follows it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return Some((value.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_quoted_commas() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let challenges = parse_challenges(header);
        assert_eq!(challenges.len(), 1);
        let bearer = &challenges[0];
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(bearer.get("service"), Some("registry.docker.io"));
        assert_eq!(bearer.get("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn many_challenges_and_odd_spaces_are_read() {
        let cases: [(&str, &[(&str, usize)]); 8] = [
            (
                "Basic realm=\"a\", Bearer realm=\"b\",service=c",
                &[("basic", 1), ("bearer", 2)],
            ),
            (
                "Negotiate, Basic realm=a",
                &[("negotiate", 0), ("basic", 1)],
            ),
            ("BEARER realm = \"x\" , Scope=\"a\\\"b\"", &[("bearer", 2)]),
            (" , Bearer realm=x", &[("bearer", 1)]),
            ("", &[]),
            ("realm=x", &[]),
            ("Bearer realm=\"unfinished", &[("bearer", 0)]),
            ("Bearer \u{e4}", &[("bearer", 0)]),
        ];
        for (header, expected) in cases {
            let read = parse_challenges(header);
            let read: Vec<_> = read
                .iter()
                .map(|one| (one.scheme.as_str(), one.parameters.len()))
                .collect();
            assert_eq!(read, expected, "{header}");
        }
    }
}
