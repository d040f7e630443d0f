//! `linux.resources.hugepageLimits`
//!
//! Spec: config-linux.md#configLinuxHugePageLimits

use oci_spec::runtime::LinuxHugepageLimit;

use crate::FieldError;

/// How much memory there may be in pages of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugepageLimit {
    /// `pageSize`, as the kernel names its files: `64KB`, `2MB`, `1GB`.
    pub page_size: String,
    /// `limit`
    pub limit_bytes: u64,
}

pub(super) fn from_spec(spec: &[LinuxHugepageLimit]) -> Result<Vec<HugepageLimit>, FieldError> {
    let read = |(index, limit): (usize, &LinuxHugepageLimit)| {
        let field = |name: &str| format!("linux.resources.hugepageLimits[{index}].{name}");
        let (page_size, limit) = (limit.page_size(), limit.limit());
        if !is_page_size(page_size) {
            let problem = format!("{page_size:?} is not a number followed by KB, MB or GB");
            return Err(FieldError::new(field("pageSize"), problem));
        }
        let limit_bytes = u64::try_from(limit)
            .map_err(|_| FieldError::new(field("limit"), format!("{limit} is not a byte count")))?;
        Ok(HugepageLimit {
            page_size: page_size.clone(),
            limit_bytes,
        })
    };
    spec.iter().enumerate().map(read).collect()
}

fn is_page_size(text: &str) -> bool {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|number| {
        number.bytes().all(|byte| byte.is_ascii_digit())
            && number.bytes().next().is_some_and(|first| first != b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::resources;
    use super::*;

    #[test]
    fn values_and_refusals() {
        let read = |json: &str| {
            resources(&format!(r#"{{"hugepageLimits": [{json}]}}"#)).map(|r| r.hugepages)
        };
        let expected = HugepageLimit {
            page_size: "2MB".into(),
            limit_bytes: 9,
        };
        assert_eq!(
            read(r#"{"pageSize": "2MB", "limit": 9}"#),
            Ok(vec![expected])
        );
        let table = [
            (
                r#"{"pageSize": "2M", "limit": 9}"#,
                r#"pageSize: "2M" is not a number followed by KB, MB or GB"#,
            ),
            (
                r#"{"pageSize": "1GB", "limit": -9}"#,
                "limit: -9 is not a byte count",
            ),
        ];
        for (json, expected) in table {
            let expected = format!("linux.resources.hugepageLimits[0].{expected}");
            assert_eq!(read(json), Err(expected), "{json}");
        }
    }

    #[test]
    fn page_sizes() {
        for good in ["64KB", "2MB", "1GB", "16GB"] {
            assert!(is_page_size(good), "{good}");
        }
        for bad in ["", "MB", "0MB", "2", "2mb", "2 MB", "-2MB", "../2MB"] {
            assert!(!is_page_size(bad), "{bad}");
        }
    }
}
