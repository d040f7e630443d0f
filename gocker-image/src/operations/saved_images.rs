//! What images there are in a saved image's files, whoever wrote them.
//!
//! ```text
//! oci-layout      index.json -> (index ->) manifest -> config, layers in blobs/
//! manifest.json   a list: a docker-archive, whose manifest is made here of its layers
//!                 a manifest: a docker-dir
//! ```

use std::collections::HashMap;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;

use super::documents::Documents;
use super::image_source::{ImageSource, Piece};
use super::save::{IMAGE_NAME, REF_NAME};
use crate::digest::{Algorithm, Digest, DigestReader};
use crate::image::{
    Descriptor, Document, ImageConfig, Index, Manifest, PlatformChoice, media_type,
    refuse_duplicate_keys,
};
use crate::reference::Reference;
use crate::unpack::Compression;

/// An image that can be loaded.
pub(super) struct SavedImage {
    pub(super) documents: Documents,
    /// What a name of it is resolved to: the index if there is one.
    pub(super) resolved: Digest,
    /// The names that it claims.
    pub(super) names: Vec<Reference>,
    /// The blobs of its layers.
    pub(super) layers: HashMap<Digest, Piece>,
}

/// What kind of files they are, by the name of their transport.
pub(super) fn transport(source: &ImageSource) -> anyhow::Result<&'static str> {
    let is_list = || -> anyhow::Result<bool> {
        let bytes = source.get("manifest.json")?.document()?;
        Ok(bytes.trim_ascii_start().starts_with(b"["))
    };
    if source.find("oci-layout")?.is_some() {
        Ok(if source.is_archive() {
            "oci-archive"
        } else {
            "oci"
        })
    } else if source.find("manifest.json")?.is_none() {
        bail!("it has neither an oci-layout nor a manifest.json, so it holds no image")
    } else if is_list().context("manifest.json")? {
        Ok("docker-archive")
    } else {
        Ok("dir")
    }
}

/// The images that `transport` says there are, one for each name.
pub(super) fn images(
    source: &ImageSource,
    transport: &str,
    choice: &PlatformChoice,
) -> anyhow::Result<Vec<SavedImage>> {
    match transport {
        "docker-archive" => docker(source).context("manifest.json"),
        "dir" => Ok(vec![directory(source).context("manifest.json")?]),
        _ => oci(source, choice),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

fn oci(source: &ImageSource, choice: &PlatformChoice) -> anyhow::Result<Vec<SavedImage>> {
    let layout: Layout = parse(&source.get("oci-layout")?.document().context("oci-layout")?)
        .context("oci-layout")?;
    if !layout.image_layout_version.starts_with("1.") {
        bail!(
            "oci-layout: version {:?} is not served",
            layout.image_layout_version
        );
    }
    let bytes = source.get("index.json")?.document().context("index.json")?;
    let document = Document::parse(&bytes, Some(media_type::OCI_INDEX)).context("index.json")?;
    let Document::Index(index) = document else {
        bail!("index.json: it is no index");
    };
    let mut images = Vec::new();
    for descriptor in chosen(&index, choice)? {
        let image = oci_image(source, &descriptor, choice);
        images.push(image.with_context(|| format!("manifest {}", descriptor.digest))?);
    }
    Ok(images)
}

/// One entry of index.json for each image: those with one name are its platforms, and so are
/// those without one, if they all say for what platform they are.
fn chosen(index: &Index, choice: &PlatformChoice) -> anyhow::Result<Vec<Descriptor>> {
    let mut groups: Vec<(Option<&str>, Vec<Descriptor>)> = Vec::new();
    for entry in index.images() {
        let name = written_name(entry);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) if group.iter().any(|known| known.digest == entry.digest) => {}
            Some((_, group)) => group.push(entry.clone()),
            None => groups.push((name, vec![entry.clone()])),
        }
    }
    let mut entries = Vec::new();
    for (name, group) in groups {
        let are_platforms = group.iter().all(|entry| entry.platform.is_some());
        if group.len() == 1 || (name.is_none() && !are_platforms) {
            entries.extend(group);
            continue;
        }
        let platforms = Index {
            manifests: group,
            ..index.clone()
        };
        let best = platforms.select(choice);
        entries.push(
            best.with_context(|| format!("index.json: {:?}", name.unwrap_or("")))?
                .clone(),
        );
    }
    Ok(entries)
}

fn written_name(entry: &Descriptor) -> Option<&str> {
    let annotations = &entry.annotations;
    let name = annotations
        .get(IMAGE_NAME)
        .or_else(|| annotations.get(REF_NAME));
    name.map(String::as_str)
}

fn oci_image(
    source: &ImageSource,
    entry: &Descriptor,
    choice: &PlatformChoice,
) -> anyhow::Result<SavedImage> {
    // a tag alone, as other tools write it, names no image
    let name = written_name(entry).and_then(|name| name.parse::<Reference>().ok());
    let name = name.filter(|name| name.short_name().is_none() && name.digest().is_none());
    let mut descriptor = entry.clone();
    let (bytes, manifest) = loop {
        let bytes = blob(source, &descriptor)?;
        match Document::parse(&bytes, Some(&descriptor.media_type))? {
            Document::Manifest(manifest) => break (bytes, manifest),
            Document::Index(_) if descriptor.digest != entry.digest => {
                bail!("index {}: it is listed in another index", descriptor.digest)
            }
            Document::Index(index) => descriptor = index.select(choice)?.clone(),
        }
    };
    let find = |layer: &Descriptor| source.get(&blob_name(&layer.digest));
    let mut image = with_blobs(descriptor.digest, bytes, manifest, &find)?;
    image.resolved = entry.digest.clone();
    image.names = name.into_iter().collect();
    Ok(image)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn blob(source: &ImageSource, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
    let name = blob_name(&descriptor.digest);
    verified(&source.get(&name)?, descriptor).with_context(|| name)
}

/// Reads the document that a descriptor promises.
fn verified(piece: &Piece, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
    let bytes = piece.document()?;
    let actual = Digest::with(descriptor.digest.algorithm(), &bytes);
    if bytes.len() as u64 != descriptor.size || actual != descriptor.digest {
        let (size, length) = (descriptor.size, bytes.len());
        bail!(
            "it is {length} bytes with the digest {actual}, not {size} with {}",
            descriptor.digest
        );
    }
    Ok(bytes)
}

/// An image without a name, whose blobs `find` finds.
fn with_blobs(
    digest: Digest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    find: &dyn Fn(&Descriptor) -> anyhow::Result<Piece>,
) -> anyhow::Result<SavedImage> {
    let config_bytes = match manifest.config.embedded()? {
        Some(bytes) => bytes,
        None => verified(&find(&manifest.config)?, &manifest.config)
            .with_context(|| format!("config {}", manifest.config.digest))?,
    };
    let config = ImageConfig::parse(&config_bytes);
    let config = config.with_context(|| format!("config {}", manifest.config.digest))?;
    let mut layers = HashMap::new();
    for layer in &manifest.layers {
        if layer.data.is_none() {
            layers.insert(layer.digest.clone(), find(layer)?);
        }
    }
    Ok(SavedImage {
        resolved: digest.clone(),
        documents: Documents {
            digest,
            manifest_bytes,
            manifest,
            config_bytes,
            config,
        },
        names: Vec::new(),
        layers,
    })
}

fn directory(source: &ImageSource) -> anyhow::Result<SavedImage> {
    let bytes = source.get("manifest.json")?.document()?;
    let Document::Manifest(manifest) = Document::parse(&bytes, None)? else {
        bail!("it is an index, which this form has no use for");
    };
    let find = |blob: &Descriptor| source.get(blob.digest.hex());
    with_blobs(Digest::of(&bytes), bytes, manifest, &find)
}

/// One image of a docker-archive's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn docker(source: &ImageSource) -> anyhow::Result<Vec<SavedImage>> {
    let rows: Vec<DockerImage> = parse(&source.get("manifest.json")?.document()?)?;
    let images = rows.iter().enumerate().map(|(number, row)| {
        let image = docker_image(source, row);
        image.with_context(|| format!("[{number}]"))
    });
    images.collect()
}

fn docker_image(source: &ImageSource, row: &DockerImage) -> anyhow::Result<SavedImage> {
    let config_bytes = source.get(&row.config)?.document().context("Config")?;
    let config_digest = Digest::of(&config_bytes);
    let stem = row.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if format!("sha256:{stem}")
        .parse::<Digest>()
        .is_ok_and(|named| named != config_digest)
    {
        bail!("Config: {:?} has the digest {config_digest}", row.config);
    }
    let config = ImageConfig::parse(&config_bytes).context("Config")?;
    let mut descriptors = Vec::new();
    let mut pieces = HashMap::new();
    for (index, name) in row.layers.iter().flatten().enumerate() {
        let piece = source.get(name).context("Layers")?;
        let diff_id = config.rootfs.diff_ids.get(index);
        let (kind, digest) = layer_blob(&piece, diff_id).with_context(|| name.clone())?;
        descriptors.push(Descriptor::new(kind, digest.clone(), piece.size));
        pieces.insert(digest, piece);
    }
    let config_descriptor = Descriptor::new(
        media_type::OCI_CONFIG,
        config_digest,
        config_bytes.len() as u64,
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config_descriptor,
        "layers": descriptors,
    });
    let manifest_bytes = serde_json::to_vec(&manifest)?;
    let digest = Digest::of(&manifest_bytes);
    let tags = row.repo_tags.iter().flatten();
    let names = tags.map(|tag| tag.parse::<Reference>().context("RepoTags"));
    Ok(SavedImage {
        resolved: digest.clone(),
        names: names.collect::<Result<_, _>>()?,
        documents: Documents {
            digest,
            manifest: Manifest::parse(&manifest_bytes)?,
            manifest_bytes,
            config_bytes,
            config,
        },
        layers: pieces,
    })
}

/// The media type and the digest of a layer as it lies there. What is not compressed has the
/// digest that the config says, or else is found out when it is read.
fn layer_blob(piece: &Piece, diff_id: Option<&Digest>) -> anyhow::Result<(&'static str, Digest)> {
    let mut start = Vec::new();
    piece.reader().take(4).read_to_end(&mut start)?;
    let kind = match Compression::of(&start) {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    if let (Compression::None, Some(diff_id)) = (Compression::of(&start), diff_id) {
        return Ok((kind, diff_id.clone()));
    }
    let mut reader = DigestReader::new(piece.reader(), Algorithm::Sha256);
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok((kind, reader.finish().1))
}

/// Reads one document of JSON in which no key stands twice.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    refuse_duplicate_keys(bytes)?;
    Ok(serde_json::from_slice(bytes)?)
}
