//! A container's name, which is a directory's name, too.

/// The longest id, in bytes: what runc takes.
const MAX_LENGTH: usize = 1024;

/// An id that cannot be one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid container id {id:?}: {problem}")]
pub(crate) struct Error {
    id: String,
    problem: &'static str,
}

/// Checks that `id` is letters, digits and `_ + - .`, and no name of a directory itself.
///
/// # Errors
/// The id, and what is wrong with it.
pub(crate) fn check(id: &str) -> Result<(), Error> {
    let problem = if id.is_empty() {
        "it is empty"
    } else if id.len() > MAX_LENGTH {
        "it is longer than 1024 bytes"
    } else if id == "." || id == ".." {
        "it is the name of a directory"
    } else if !id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte))
    {
        "only letters, digits and _ + - . may be used"
    } else {
        return Ok(());
    };
    Err(Error {
        id: id.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "web-1", "A_b+c.d", "..."] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "a b", "ä", "a\n"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
