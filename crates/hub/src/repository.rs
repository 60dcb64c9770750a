//! Fetches a model from a hub repository into the cache that all programs for that hub share: `blobs/` by content,
//! `snapshots/COMMIT/` of links to them, `refs/` from branch to commit. A link appears when its blob is whole, a ref
//! when the last link is there.

use crate::download::{Download, Downloader, accept, authorized, bad_answer, blocking, client, unreachable};
use crate::name::{RepositoryName, is_plain};
use crate::staging::create_parent;
use crate::{HubError, HubOptions, Progress};
use hf_hub::api::RepoInfo;
use hf_hub::api::tokio::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use reqwest::{Client, redirect};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a model needs besides its weights, where the repository has it.
const CONFIGURATION: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The path of the repository's snapshot, or of its one GGUF file.
pub(crate) async fn fetch(
    wanted: &RepositoryName,
    options: &HubOptions,
    progress: &dyn Progress,
) -> Result<PathBuf, HubError> {
    let hub = Hub::new(wanted, options)?;
    if options.offline || is_commit(&wanted.revision) {
        match hub.cached() {
            Some(path) => return Ok(path),
            None if options.offline => return Err(HubError::Offline { what: wanted.id.clone() }),
            None => {}
        }
    }
    let listing = match hub.list().await {
        Ok(listing) => listing,
        Err(error @ HubError::Unreachable { .. }) => {
            let Some(path) = hub.cached() else { return Err(error) };
            progress.note(&format!("{error}\nUsing the copy of {} in the cache.", wanted.id));
            return Ok(path);
        }
        Err(error) => return Err(error),
    };
    let snapshot = hub.at_commit(&listing.sha)?;
    let path = snapshot.fetch(&listing.files, progress).await?;
    hub.cache.create_ref(&listing.sha).map_err(HubError::at(hub.cache_root))?;
    Ok(path)
}

/// Redirects within one host are followed; one to another host is where the hub's own headers are.
pub(crate) fn without_foreign_redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let same_host = attempt.previous().last().is_some_and(|last| last.origin() == attempt.url().origin());
        match attempt.previous().len() {
            0..=10 if same_host => attempt.follow(),
            0..=10 => attempt.stop(),
            _ => attempt.error("too many redirects"),
        }
    })
}

/// One repository, at the revision the user named.
struct Hub<'a> {
    wanted: &'a RepositoryName,
    options: &'a HubOptions,
    cache_root: &'a Path,
    cache: CacheRepo,
    token: Option<String>,
    /// Does not follow redirects to other hosts.
    client: Client,
}

/// The files of a commit.
struct Listing {
    sha: String,
    files: Vec<String>,
}

impl<'a> Hub<'a> {
    fn new(wanted: &'a RepositoryName, options: &'a HubOptions) -> Result<Self, HubError> {
        let cache = Cache::new(options.hub_cache.clone());
        let token = options.token.clone().or_else(|| cache.token());
        let cache = cache.repo(repo(wanted, &wanted.revision));
        let client = client(options, without_foreign_redirects())?;
        Ok(Self { wanted, options, cache_root: &options.hub_cache, cache, token, client })
    }

    /// The repository's address at a revision.
    fn api(&self, revision: &str) -> Result<ApiRepo, HubError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache_root.to_owned())).with_progress(false);
        if let Some(endpoint) = &self.options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|error| HubError::Unreachable {
            host: self.wanted.id.clone(),
            reason: error.to_string(),
        })?;
        Ok(api.repo(repo(self.wanted, revision)))
    }

    async fn list(&self) -> Result<Listing, HubError> {
        let request = self.api(&self.wanted.revision)?.info_request().build();
        let url = request.map_err(|error| bad_answer(&self.wanted.id, &error.to_string()))?.url().to_string();
        let response = authorized(self.client.get(&url), self.token.as_deref()).send().await;
        let response = response.map_err(|error| unreachable(&url, &error))?;
        if response.status().is_server_error() {
            let reason = format!("status {}", response.status());
            return Err(HubError::Unreachable { host: url, reason });
        }
        accept(&response, &format!("{} at {}", self.wanted.id, self.wanted.revision))?;
        let info: RepoInfo = response.json().await.map_err(|error| bad_answer(&url, &error.to_string()))?;
        if !is_plain(&info.sha) {
            return Err(bad_answer(&url, "its commit is no hash"));
        }
        // A name that could leave the snapshot's directory is not one of a model's files.
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        let files = files.filter(|name| name.split('/').all(is_plain)).collect();
        Ok(Listing { sha: info.sha, files })
    }

    /// A complete copy from an earlier run, ours or another program's.
    fn cached(&self) -> Option<PathBuf> {
        let revision = &self.wanted.revision;
        let commit = if is_commit(revision) {
            revision.clone()
        } else {
            let folder = repo(self.wanted, revision).folder_name();
            std::fs::read_to_string(self.cache_root.join(folder).join("refs").join(revision)).ok()?
        };
        let directory = self.cache.pointer_path(commit.trim());
        match &self.wanted.file {
            None => is_complete(&directory).then_some(directory),
            Some(file) if file.contains('/') => Some(directory.join(file)).filter(|path| path.exists()),
            Some(file) => {
                let names = std::fs::read_dir(&directory).ok()?.flatten();
                let names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
                let file = choose_gguf(&self.wanted.id, &names, Some(file)).ok()?;
                Some(directory.join(file)).filter(|path| path.exists())
            }
        }
    }

    fn at_commit(&self, commit: &str) -> Result<Snapshot<'_>, HubError> {
        Ok(Snapshot {
            hub: self,
            api: self.api(commit)?,
            directory: self.cache.pointer_path(commit),
            downloader: Downloader::new(self.options)?,
        })
    }
}

/// One commit's directory in the cache.
struct Snapshot<'a> {
    hub: &'a Hub<'a>,
    api: ApiRepo,
    directory: PathBuf,
    downloader: Downloader,
}

/// What the hub says of a file before its bytes.
struct FileHead {
    /// Names the blob. For large files it is their SHA-256 sum.
    etag: String,
}

impl Snapshot<'_> {
    async fn fetch(&self, files: &[String], progress: &dyn Progress) -> Result<PathBuf, HubError> {
        let wanted = self.hub.wanted;
        let has_weights = files.iter().any(|name| is_safetensors(name));
        if wanted.file.is_some() || !has_weights {
            let file = choose_gguf(&wanted.id, files, wanted.file.as_deref())?;
            self.file(&file, progress).await?;
            return Ok(self.directory.join(file));
        }
        for name in CONFIGURATION {
            if files.iter().any(|file| file == name) {
                self.file(name, progress).await?;
            }
        }
        for name in self.weights(files, progress).await? {
            self.file(&name, progress).await?;
        }
        Ok(self.directory.clone())
    }

    /// The weights' files: those of the index if there is one. Some repositories hold a second set beside it.
    async fn weights(&self, files: &[String], progress: &dyn Progress) -> Result<Vec<String>, HubError> {
        if files.iter().any(|name| name == INDEX) {
            self.file(INDEX, progress).await?;
            let path = self.directory.join(INDEX);
            let shards = shards(&path).ok_or_else(|| bad_answer(INDEX, "it is no index of shards"))?;
            return Ok(shards);
        }
        if files.iter().any(|name| name == SINGLE) {
            return Ok(vec![SINGLE.to_owned()]);
        }
        Ok(files.iter().filter(|name| is_safetensors(name)).cloned().collect())
    }

    /// Fetches one file unless its link is there.
    async fn file(&self, name: &str, progress: &dyn Progress) -> Result<(), HubError> {
        let link = self.directory.join(name);
        if link.exists() {
            return Ok(());
        }
        let url = self.api.url(name);
        let head = self.head(&url, name).await?;
        let folder = repo(self.hub.wanted, "main").folder_name();
        let blob = self.hub.cache.blob_path(&head.etag);
        let wanted = Download {
            url: &url,
            destination: &blob,
            // Where the Python client has its locks, of the same kind.
            lock: self.hub.cache_root.join(".locks").join(folder).join(format!("{}.lock", head.etag)),
            sha256: is_sha256(&head.etag).then_some(head.etag.as_str()),
            token: self.hub.token.as_deref(),
            label: name,
        };
        self.downloader.fetch(&wanted, progress).await?;
        let up = "../".repeat(name.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{}", head.etag));
        blocking(move || place_link(&target, &link)).await
    }

    async fn head(&self, url: &str, name: &str) -> Result<FileHead, HubError> {
        let response = authorized(self.hub.client.head(url), self.hub.token.as_deref()).send().await;
        let response = response.map_err(|error| unreachable(url, &error))?;
        accept(&response, name)?;
        let header = ["x-linked-etag", "etag"].into_iter().find_map(|key| response.headers().get(key));
        let etag = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        if is_plain(&etag) { Ok(FileHead { etag }) } else { Err(bad_answer(url, "it gave no usable etag")) }
    }
}

fn repo(wanted: &RepositoryName, revision: &str) -> Repo {
    Repo::with_revision(wanted.id.clone(), RepoType::Model, revision.to_owned())
}

/// Under a name of our own first, so that a link is there at once or not at all, whoever else makes it.
fn place_link(target: &Path, link: &Path) -> Result<(), HubError> {
    create_parent(link)?;
    let draft = link.with_extension(format!("{}.link", std::process::id()));
    crate::staging::remove(&draft)?;
    std::os::unix::fs::symlink(target, &draft).map_err(HubError::at(&draft))?;
    std::fs::rename(&draft, link).map_err(HubError::at(link))
}

/// The GGUF file that is meant: by its name, by a part such as `Q4_K_M`, or as the only one.
fn choose_gguf(repository: &str, files: &[String], wanted: Option<&str>) -> Result<String, HubError> {
    if let Some(exact) = files.iter().find(|name| Some(name.as_str()) == wanted) {
        return Ok(exact.clone());
    }
    let part = wanted.unwrap_or_default().to_ascii_lowercase();
    let ggufs: Vec<_> = files.iter().filter(|name| name.ends_with(".gguf")).collect();
    let matching: Vec<_> = ggufs.iter().filter(|name| name.to_ascii_lowercase().contains(&part)).collect();
    match (matching.as_slice(), ggufs.is_empty()) {
        ([only], _) => Ok((**only).clone()),
        (_, true) => Err(HubError::NoWeights { repository: repository.to_owned() }),
        (some, false) => {
            let offered =
                if some.is_empty() { ggufs.clone() } else { some.iter().map(|name| **name).collect() };
            let files = offered.into_iter().cloned().collect();
            Err(HubError::ChooseFile { repository: repository.to_owned(), files })
        }
    }
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains('/')
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a snapshot can be loaded.
fn is_complete(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).exists();
    match shards(&directory.join(INDEX)) {
        Some(shards) => has("config.json") && shards.iter().all(|shard| has(shard)),
        None => has("config.json") && has(SINGLE),
    }
}

/// The files that an index of shards names, each once.
fn shards(index: &Path) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(&std::fs::read_to_string(index).ok()?).ok()?;
    let mut shards: Vec<_> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    shards.iter().all(|name| is_plain(name)).then_some(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[&str], wanted: Option<&str>, expected: &str) {
        let files: Vec<_> = files.iter().map(|name| (*name).to_owned()).collect();
        let got = match choose_gguf("o/r", &files, wanted) {
            Ok(file) => file,
            Err(HubError::ChooseFile { files, .. }) => format!("choose {}", files.join(" ")),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_gguf_file_is_chosen_only_when_there_is_no_doubt() {
        let files = ["README.md", "m.Q4_0.gguf", "m.Q4_K_M.gguf", "m.Q4_K_S.gguf"];
        check(&files, Some("m.Q4_0.gguf"), "m.Q4_0.gguf");
        check(&files, Some("q4_k_m"), "m.Q4_K_M.gguf");
        check(&files, Some("Q4_K"), "choose m.Q4_K_M.gguf m.Q4_K_S.gguf");
        check(&files, Some("Q9"), "choose m.Q4_0.gguf m.Q4_K_M.gguf m.Q4_K_S.gguf");
        check(&files[..2], None, "m.Q4_0.gguf");
        check(&files[..1], None, "o/r has no safetensors and no GGUF weights; choose another repository");
    }
}
