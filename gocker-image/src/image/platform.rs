//! Platforms: their many names, and which one serves for which.
//!
//! Spec: image-spec image-index.md#platform-variants

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …, in Go's names.
    pub architecture: String,
    /// `v8`, …. None is the architecture's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system's version; of Windows only.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "super::json::null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
}

/// Which platform of an image is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlatformChoice {
    /// What runs here; an image of one other platform only is taken too.
    Host(Platform),
    /// The platform that the user named, nothing else.
    Exactly(Platform),
}

impl PlatformChoice {
    /// The user's choice, or this host's platform.
    #[must_use]
    pub fn new(named: Option<Platform>) -> Self {
        named.map_or_else(|| Self::Host(Platform::host()), Self::Exactly)
    }

    /// The platform that is looked for.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        match self {
            Self::Host(platform) | Self::Exactly(platform) => platform,
        }
    }
}

impl Platform {
    /// A platform by its normal name.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant
            .map(str::to_ascii_lowercase)
            .filter(|text| !text.is_empty());
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant);
        Self {
            os,
            architecture,
            variant,
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// What runs here, with the processor's level.
    #[must_use]
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, host_variant())
    }

    /// Whether this host's processor does not run what is made for it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let host = Self::host();
        let runs_386 = host.architecture == "amd64" && self.architecture == "386";
        host.rank(self).is_none() && !runs_386
    }

    /// Whether it is what attestations give as their platform.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// How well `offered` serves where `self` is wanted: 0 is best, None not
    /// at all.
    #[must_use]
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let wanted = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        let offered = Self::new(
            &offered.os,
            &offered.architecture,
            offered.variant.as_deref(),
        );
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        let variants = fallbacks(&wanted.architecture, wanted.variant.as_deref());
        variants
            .iter()
            .position(|variant| *variant == offered.variant.as_deref())
    }
}

/// The one name of each architecture, and its usual variant left out (amd64,
/// arm64) or put in (arm).
fn normalise(architecture: &str, variant: Option<String>) -> (String, Option<String>) {
    let (name, default) = match architecture {
        "x86_64" | "x86-64" | "amd64" => ("amd64", Some("v1")),
        "aarch64" | "arm64" => ("arm64", Some("v8")),
        "armhf" => return ("arm".to_owned(), Some("v7".to_owned())),
        "armel" => return ("arm".to_owned(), Some("v6".to_owned())),
        "i386" | "i686" | "x86" | "386" => ("386", None),
        "powerpc64le" | "powerpc64" => ("ppc64le", None),
        other => (other, None),
    };
    let variant = match (name, variant.as_deref()) {
        ("arm", None) => Some("v7".to_owned()),
        ("arm" | "arm64", Some(digits)) if digits.starts_with(|c: char| c.is_ascii_digit()) => {
            Some(format!("v{digits}"))
        }
        _ => variant,
    };
    let variant = variant.filter(|variant| Some(variant.as_str()) != default);
    (name.to_owned(), variant)
}

/// The variants that serve for `variant`, the best first.
fn fallbacks<'a>(architecture: &str, variant: Option<&'a str>) -> Vec<Option<&'a str>> {
    let chain: &[&str] = match (architecture, variant) {
        ("amd64", Some("v4")) => &["v4", "v3", "v2"],
        ("amd64", Some("v3")) => &["v3", "v2"],
        ("arm", Some("v8")) => return vec![Some("v8"), Some("v7"), Some("v6"), Some("v5")],
        ("arm", Some("v7")) => return vec![Some("v7"), Some("v6"), Some("v5")],
        ("arm", Some("v6")) => return vec![Some("v6"), Some("v5")],
        ("amd64", Some("v2")) => &["v2"],
        ("arm64", Some(_)) => return vec![variant, None],
        _ => return vec![variant],
    };
    chain.iter().map(|name| Some(*name)).chain([None]).collect()
}

/// The x86-64 level of this processor. Other architectures have one variant.
#[cfg(target_arch = "x86_64")]
fn host_variant() -> Option<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
    let v3 = has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c");
    let v3 = v3 && has!("fma") && has!("lzcnt") && has!("movbe");
    match (v2, v3) {
        (true, true) => Some("v3"),
        (true, false) => Some("v2"),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> Option<&'static str> {
    None
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform: write os/architecture or os/architecture/variant, as linux/arm64"
)]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| is_word(part)) {
            return Err(PlatformError(text.to_owned()));
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_one_name() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                text.parse::<Platform>().unwrap().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?} parsed");
        }
    }
}
