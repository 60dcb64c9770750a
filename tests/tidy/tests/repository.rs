//! Applies every rule to the repository.

use tidy::tree::{File, files, root};
use tidy::{Problem, layers, manifests, prose, source};

fn repository() -> Vec<File> {
    let files = files(&root()).expect("the repository can be read");
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "this is the repository's root");
    files
}

fn assert_none(problems: &[Problem]) {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} against the rules:\n{}", lines.len(), lines.join("\n"));
}

/// Manifests of members, parsed.
fn manifests_of_members() -> Vec<(String, toml::Table)> {
    let is_member = |file: &File| file.path.ends_with("/Cargo.toml");
    let parse = |file: File| (file.path.clone(), file.text.parse().expect("valid TOML"));
    let members: Vec<_> = repository().into_iter().filter(is_member).map(parse).collect();
    assert!(members.len() > 10, "found only {} members", members.len());
    members
}

#[test]
fn dependencies_point_down() {
    let crates = manifests_of_members().into_iter().filter(|(path, _)| path.starts_with("crates/"));
    assert_none(&crates.flat_map(|(path, manifest)| layers::check(&path, &manifest)).collect::<Vec<_>>());
}

#[test]
fn manifests_follow_the_workspace() {
    let members = manifests_of_members();
    assert_none(
        &members.iter().flat_map(|(path, manifest)| manifests::check(path, manifest)).collect::<Vec<_>>(),
    );
}

#[test]
fn source_keeps_its_rules() {
    let sources: Vec<_> = repository().into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(sources.len() > 20, "found only {} source files", sources.len());
    assert_none(&sources.iter().flat_map(source::check).collect::<Vec<_>>());
}

#[test]
fn text_names_no_place_of_one_machine() {
    assert_none(&repository().iter().flat_map(prose::check).collect::<Vec<_>>());
}
