//! Save: images of the store as an archive or a directory that other tools read.
//!
//! ```text
//! oci-archive, oci-dir   oci-layout, index.json, blobs/<algorithm>/<hex>
//! docker-archive         manifest.json, repositories, <config>.json, <diff ID>.tar
//! docker-dir             manifest.json, version, <hex>
//! ```
//!
//! Documents and blobs are those that were pulled, byte by byte; foreign layers stay where their
//! manifest says that they are, except in a docker-archive, which has no place for that. In a
//! docker-archive layers are not compressed, and the manifest is left out, so its reader makes
//! another one.
//!
//! Spec: image-spec image-layout.md

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::content::Content;
use super::documents::Stored;
use super::package::{self, Package};
use super::{LayerEvent, Progress, stored_name};
use crate::digest::{Digest, Hasher};
use crate::errno::CallError;
use crate::image::{Descriptor, Platform, media_type};
use crate::interrupt;
use crate::reference::Reference;
use crate::registry::Client;
use crate::store::Store;
use crate::unpack;

/// The annotation of a name, as image-spec has it.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation of a whole name, as containerd and Docker write it.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";

/// The form of what is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFormat {
    /// An OCI image layout as a tar archive.
    OciArchive,
    /// An OCI image layout.
    OciDir,
    /// What `docker save` writes.
    DockerArchive,
    /// A manifest and its blobs side by side, the directory transport of skopeo.
    DockerDir,
}

/// Where it goes.
pub enum SaveTo {
    /// To the file or directory of this name.
    Path(PathBuf),
    /// To a stream; only an archive can.
    Stream(Box<dyn Write>),
}

/// What was saved of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The name under which it is in the archive.
    pub reference: Option<String>,
    /// The image.
    pub manifest: Digest,
}

/// Saves images, in their order.
///
/// # Errors
/// When one is not here, a layer cannot be had, or there is no room. Then there is no file and
/// no directory; a stream lacks its end.
pub fn save(
    (store, client): (&Store, &Client),
    references: &[Reference],
    format: SaveFormat,
    to: SaveTo,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Saved>> {
    let paths = match &to {
        SaveTo::Path(path) => vec![path.clone()],
        SaveTo::Stream(_) => Vec::new(),
    };
    let tidy = || package::discard_for_good(&paths);
    let saved = interrupt::guarded(&tidy, || {
        let images: Vec<Image> = references
            .iter()
            .map(|reference| Image::find(store, reference))
            .collect::<Result<_, _>>()?;
        let plan = plan(&images, format)?;
        let package = match (to, format) {
            (SaveTo::Stream(writer), SaveFormat::OciArchive | SaveFormat::DockerArchive) => {
                Package::stream(writer)
            }
            (SaveTo::Stream(_), _) => bail!("a directory cannot be written to a stream"),
            (SaveTo::Path(path), SaveFormat::OciArchive | SaveFormat::DockerArchive) => {
                Package::file(&path)?
            }
            (SaveTo::Path(path), _) => Package::directory(&path)?,
        };
        let writing = Writing {
            store,
            client,
            images: &images,
            progress,
        };
        writing.write(package, plan)?;
        Ok(images
            .into_iter()
            .map(|image| Saved {
                reference: image.name.as_ref().map(Reference::to_string),
                manifest: image.stored.image.manifest,
            })
            .collect())
    });
    let saved = saved.map_err(anyhow::Error::from).flatten();
    saved.context("save")
}

/// An image to save, under the name that was asked for.
struct Image {
    stored: Stored,
    /// None: it was asked for by its digest.
    name: Option<Reference>,
}

impl Image {
    fn find(store: &Store, reference: &Reference) -> anyhow::Result<Self> {
        let stored = Stored::find(store, reference);
        let stored = stored.with_context(|| format!("{:?}", reference.familiar()))?;
        let is_name = reference.digest().is_none() && reference.bare_digest().is_none();
        Ok(Self {
            stored,
            name: is_name.then(|| reference.clone()),
        })
    }
}

/// The content of one file.
enum Part {
    Bytes(Vec<u8>),
    /// A layer's blob of the image of that number.
    Blob(usize, Descriptor),
    /// What a layer's blob decompresses to.
    Layer(usize, Descriptor, Digest),
}

/// All files by their names. The same images make the same plan.
type Plan = BTreeMap<String, Part>;

fn plan(images: &[Image], format: SaveFormat) -> anyhow::Result<Plan> {
    match format {
        SaveFormat::OciArchive | SaveFormat::OciDir => Ok(oci(images)),
        SaveFormat::DockerArchive => docker(images),
        SaveFormat::DockerDir => match images {
            [image] => Ok(directory(image)),
            _ => bail!("a docker-dir holds one image, not {}", images.len()),
        },
    }
}

/// The documents and blobs of an image, with the names that `name` gives them.
fn blobs(plan: &mut Plan, number: usize, image: &Image, name: fn(&Digest) -> String) {
    let documents = &image.stored.documents;
    for layer in &documents.manifest.layers {
        plan.insert(name(&layer.digest), Part::Blob(number, layer.clone()));
    }
    let config = &documents.manifest.config.digest;
    plan.insert(name(config), Part::Bytes(documents.config_bytes.clone()));
}

fn oci(images: &[Image]) -> Plan {
    let name = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
    let mut plan = Plan::new();
    let mut rows = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let documents = &image.stored.documents;
        blobs(&mut plan, number, image, name);
        let bytes = documents.manifest_bytes.clone();
        plan.insert(name(&documents.digest), Part::Bytes(bytes));
        let row = oci_row(image);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": rows});
    plan.insert(
        "index.json".to_owned(),
        Part::Bytes(index.to_string().into_bytes()),
    );
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
    plan.insert("oci-layout".to_owned(), Part::Bytes(layout));
    plan
}

/// The entry of an image in index.json.
fn oci_row(image: &Image) -> Value {
    let documents = &image.stored.documents;
    let Platform {
        os,
        architecture,
        variant,
        ..
    } = documents.config.platform();
    let mut platform = json!({"os": os, "architecture": architecture});
    if let Some(variant) = variant {
        platform["variant"] = variant.into();
    }
    let mut row = json!({
        "mediaType": documents.manifest.media_type,
        "digest": documents.digest,
        "size": documents.manifest_bytes.len(),
        "platform": platform,
    });
    if let Some(name) = &image.name {
        let name = stored_name(name);
        row["annotations"] = json!({REF_NAME: name, IMAGE_NAME: name});
    }
    row
}

fn docker(images: &[Image]) -> anyhow::Result<Plan> {
    let mut plan = Plan::new();
    // by config, for one image may have several names
    let mut rows: Vec<(String, Value)> = Vec::new();
    let mut repositories = json!({});
    for (number, image) in images.iter().enumerate() {
        let documents = &image.stored.documents;
        let config = format!("{}.json", documents.manifest.config.digest.hex());
        let mut layers = Vec::new();
        let diff_ids = &documents.config.rootfs.diff_ids;
        for (blob, diff_id) in documents.manifest.layers.iter().zip(diff_ids) {
            let name = format!("{}.tar", diff_id.hex());
            let part = Part::Layer(number, blob.clone(), diff_id.clone());
            plan.entry(name.clone()).or_insert(part);
            layers.push(name);
        }
        plan.insert(config.clone(), Part::Bytes(documents.config_bytes.clone()));
        if !rows.iter().any(|(known, _)| *known == config) {
            let row = json!({"Config": config, "RepoTags": [], "Layers": layers});
            rows.push((config.clone(), row));
        }
        let Some(name) = &image.name else { continue };
        if let Some((_, row)) = rows.iter_mut().find(|(known, _)| *known == config)
            && let Some(tags) = row["RepoTags"].as_array_mut()
        {
            tags.push(stored_name(name).into());
        }
        if let (Some(top), Some(tag)) = (diff_ids.last(), name.tag()) {
            repositories[name.name()][tag] = top.hex().into();
        }
    }
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    for (name, document) in [
        ("manifest.json", json!(rows)),
        ("repositories", repositories),
    ] {
        plan.insert(name.to_owned(), Part::Bytes(serde_json::to_vec(&document)?));
    }
    Ok(plan)
}

fn directory(image: &Image) -> Plan {
    let mut plan = Plan::new();
    blobs(&mut plan, 0, image, |digest| digest.hex().to_owned());
    let manifest = image.stored.documents.manifest_bytes.clone();
    plan.insert("manifest.json".to_owned(), Part::Bytes(manifest));
    let version = b"Directory Transport Version: 1.1\n".to_vec();
    plan.insert("version".to_owned(), Part::Bytes(version));
    plan
}

/// The files of a plan on their way.
struct Writing<'a> {
    store: &'a Store,
    client: &'a Client,
    images: &'a [Image],
    progress: &'a dyn Progress,
}

impl Writing<'_> {
    fn write(&self, mut package: Package, plan: Plan) -> anyhow::Result<()> {
        let mut directories: Vec<String> = Vec::new();
        for (name, part) in plan {
            let parts = name.match_indices('/').map(|(end, _)| &name[..end]);
            for directory in parts {
                if !directories.iter().any(|known| known == directory) {
                    package.add_directory(directory)?;
                    directories.push(directory.to_owned());
                }
            }
            match part {
                Part::Bytes(bytes) => {
                    package.add(&name, bytes.len() as u64, &mut Cursor::new(bytes))?;
                }
                Part::Blob(_, blob) if super::stays_elsewhere(&blob, self.progress) => {}
                Part::Blob(image, blob) => self
                    .blob(&mut package, &name, (image, &blob))
                    .with_context(|| format!("layer {}", blob.digest))?,
                Part::Layer(image, blob, diff_id) => self
                    .layer(&mut package, &name, (image, &blob), &diff_id)
                    .with_context(|| format!("layer {}", blob.digest))?,
            }
        }
        package.finish()
    }

    fn open(&self, (image, blob): (usize, &Descriptor)) -> anyhow::Result<Box<dyn Read + Send>> {
        let content = Content {
            store: self.store,
            client: self.client,
            stored: &self.images[image].stored,
            progress: self.progress,
        };
        content.open(blob)
    }

    fn blob(
        &self,
        package: &mut Package,
        name: &str,
        blob: (usize, &Descriptor),
    ) -> anyhow::Result<()> {
        let mut content = self.counted(blob)?;
        package.add(name, blob.1.size, &mut content)?;
        self.progress.layer(&blob.1.digest, LayerEvent::Done);
        Ok(())
    }

    /// Decompresses a layer aside, for its size stands before its content.
    fn layer(
        &self,
        package: &mut Package,
        name: &str,
        blob: (usize, &Descriptor),
        diff_id: &Digest,
    ) -> anyhow::Result<()> {
        let content = self.counted(blob)?;
        let (mut scratch, size) = self.decompress(content, diff_id)?;
        scratch.rewind()?;
        package.add(name, size, &mut scratch)?;
        self.progress.layer(&blob.1.digest, LayerEvent::Done);
        Ok(())
    }

    fn decompress(&self, content: impl Read, diff_id: &Digest) -> anyhow::Result<(File, u64)> {
        let mut scratch = self.store.scratch()?;
        let mut hasher = Hasher::new(diff_id.algorithm());
        let mut tar = unpack::decoder(BufReader::with_capacity(256 << 10, content))?.1;
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            let count = tar.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            let written = scratch.write_all(&buffer[..count]);
            written.map_err(|error| CallError::new("write", self.store.path(), error))?;
            size += count as u64;
        }
        drop(tar);
        let actual = hasher.finish();
        if actual != *diff_id {
            bail!("its content has the diff ID {actual}, not {diff_id}");
        }
        Ok((scratch, size))
    }

    fn counted(&self, blob: (usize, &Descriptor)) -> anyhow::Result<Counted<'_>> {
        let (digest, bytes) = (blob.1.digest.clone(), blob.1.size);
        let reader = self.open(blob)?;
        self.progress.layer(&digest, LayerEvent::Begin { bytes });
        Ok(Counted {
            reader,
            digest,
            progress: self.progress,
        })
    }
}

/// A reader that tells how far it is.
struct Counted<'a> {
    reader: Box<dyn Read + Send>,
    digest: Digest,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buf)?;
        let bytes = count as u64;
        self.progress
            .layer(&self.digest, LayerEvent::Advance { bytes });
        Ok(count)
    }
}
