//! A hub repository, its cache, and what happens without the hub.

use crate::server::{ServedFile, Server};
use crate::{content, names, options, sha256};
use axum::http::StatusCode;
use baton_hub::progress::Silent;
use baton_hub::{HubError, HubOptions, resolve};
use std::path::Path;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn json(text: &str) -> ServedFile {
    ServedFile { bytes: text.as_bytes().to_vec(), etag: "\"aa11\"", ..ServedFile::default() }
}

/// As the hub serves a large file: its sum in a header of its own.
fn large(bytes: Vec<u8>) -> ServedFile {
    let sum = sha256(&bytes);
    ServedFile { bytes, headers: vec![("x-linked-etag", format!("\"{sum}\""))], ..ServedFile::default() }
}

fn listing(files: &[&str]) -> ServedFile {
    let siblings: Vec<_> = files.iter().map(|file| format!(r#"{{"rfilename": "{file}"}}"#)).collect();
    json(&format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", ")))
}

const INDEX: &str =
    r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;

async fn sharded() -> (TempDir, Server, HubOptions) {
    let base = "/org/name/resolve/0123456789abcdef0123456789abcdef01234567";
    let leak = |file: &str| -> &'static str { Box::leak(format!("{base}/{file}").into_boxed_str()) };
    let names = [
        "README.md",
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "consolidated.safetensors",
    ];
    let server = Server::start([
        ("/api/models/org/name/revision/main", {
            let mut all = names.to_vec();
            all.extend(["model.safetensors.index.json", "../../escape.json", "tokenizer.json"]);
            listing(&all)
        }),
        (leak("config.json"), ServedFile { etag: "\"c0\"", ..json("{}") }),
        (leak("tokenizer.json"), ServedFile { etag: "\"70\"", ..json("{\"t\": 1}") }),
        (leak("model.safetensors.index.json"), ServedFile { etag: "\"1d\"", ..json(INDEX) }),
        (leak("model-1.safetensors"), ServedFile { cuts: 1, ..large(content(5000)) }),
        (leak("model-2.safetensors"), large(content(7000))),
    ])
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), &server.url);
    options.token = Some("secret".to_owned());
    (directory, server, options)
}

async fn get(name: &str, options: &HubOptions) -> Result<std::path::PathBuf, HubError> {
    resolve(name, options, &Silent).await
}

#[tokio::test]
async fn a_sharded_model_lands_in_the_shared_cache() {
    let (_directory, server, options) = sharded().await;
    let path = get("org/name", &options).await.expect("fetches");
    let root = options.hub_cache.join("models--org--name");
    assert_eq!(path, root.join("snapshots").join(COMMIT));
    let wanted = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&path), wanted, "no README, no second set of weights, nothing outside");
    assert_eq!(std::fs::read(path.join("model-1.safetensors")).expect("reads"), content(5000));
    let link = std::fs::read_link(path.join("model-2.safetensors")).expect("a link");
    assert_eq!(link, Path::new("../../blobs").join(sha256(&content(7000))));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).expect("reads"), COMMIT);
    let asked = server.asked("GET", "/config.json");
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer secret"));

    let before = server.asked("GET", ".safetensors").len();
    assert_eq!(get("org/name", &options).await.expect("is there"), path);
    assert_eq!(server.asked("GET", ".safetensors").len(), before, "nothing is fetched twice");
}

#[tokio::test]
async fn the_cache_serves_without_the_hub() {
    let (_directory, _server, mut options) = sharded().await;
    let path = get("org/name", &options).await.expect("fetches");
    options.endpoint = Some("http://127.0.0.1:9".to_owned());
    assert_eq!(get("org/name", &options).await.expect("from the cache"), path);
    options.offline = true;
    assert_eq!(get("org/name", &options).await.expect("from the cache"), path);

    std::fs::remove_file(path.join("model-2.safetensors")).expect("removes");
    let error = get("org/name", &options).await.expect_err("incomplete");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    options.offline = false;
    let error = get("org/name", &options).await.expect_err("incomplete");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_weight_file_with_other_bytes_than_its_tag_is_refused() {
    let path = "/org/gguf/resolve/0123456789abcdef0123456789abcdef01234567/m.Q4_0.gguf";
    let mut file = large(content(5000));
    file.bytes[4999] ^= 1;
    let files =
        [("/api/models/org/gguf/revision/v1", listing(&["m.Q4_0.gguf", "m.Q8_0.gguf"])), (path, file)];
    let server = Server::start(files).await;
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path(), &server.url);
    let error = get("org/gguf@v1:Q4_0", &options).await.expect_err("another sum");
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    let root = options.hub_cache.join("models--org--gguf");
    assert!(!root.join("snapshots").exists() && !root.join("refs").exists());
    assert!(names(&root.join("blobs")).is_empty(), "{:?}", names(&root.join("blobs")));

    let error = get("org/gguf@v1", &options).await.expect_err("two files");
    assert!(error.to_string().contains("m.Q4_0.gguf, m.Q8_0.gguf"), "{error}");
}

#[tokio::test]
async fn one_gguf_file_is_fetched_by_a_part_of_its_name() {
    let path = "/org/gguf/resolve/0123456789abcdef0123456789abcdef01234567/m.Q4_0.gguf";
    let listing = listing(&["m.Q4_0.gguf", "m.Q8_0.gguf"]);
    let server =
        Server::start([("/api/models/org/gguf/revision/main", listing), (path, large(content(5000)))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), &server.url);
    let path = get("org/gguf:q4_0", &options).await.expect("fetches");
    assert_eq!(std::fs::read(&path).expect("reads"), content(5000));
    options.offline = true;
    assert_eq!(get("org/gguf:q4_0", &options).await.expect("from the cache"), path);
}

#[tokio::test]
async fn absent_and_forbidden_repositories_are_told_apart() {
    let refused = |code: &str| ServedFile {
        status: Some(StatusCode::UNAUTHORIZED),
        headers: vec![("x-error-code", code.to_owned())],
        ..ServedFile::default()
    };
    let server = Server::start([
        ("/api/models/org/gated/revision/main", refused("GatedRepo")),
        ("/api/models/org/hidden/revision/main", refused("RepoNotFound")),
    ])
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path(), &server.url);
    let kind = async |name| match get(name, &options).await.expect_err("not to be had") {
        HubError::AccessDenied { what } => format!("denied {what}"),
        HubError::NotFound { what, .. } => format!("absent {what}"),
        other => other.to_string(),
    };
    assert_eq!(kind("org/gated").await, "denied org/gated at main");
    assert_eq!(kind("org/hidden").await, "absent org/hidden at main");
    assert_eq!(kind("org/absent").await, "absent org/absent at main");
}
