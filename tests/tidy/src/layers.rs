//! Dependencies point down: a crate uses crates of lower layers, never one of its own.

use crate::Problem;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Each crate's layer. docs/architecture.md says what they mean.
const LAYERS: [(&str, u8); 18] = [
    ("baton-types", 0),
    ("baton-protocol", 1),
    ("baton-kvcache", 1),
    ("baton-kernels", 1),
    ("baton-telemetry", 1),
    ("baton-hub", 1),
    ("baton-router", 2),
    ("baton-tokenizer", 2),
    ("baton-engine", 2),
    ("baton-model", 2),
    ("baton-transfer", 2),
    ("baton-coord", 2),
    ("baton-frontend", 3),
    ("baton-worker", 3),
    ("baton-planner", 3),
    ("baton-operator", 3),
    ("baton", 4),
    // Alone: it uses none of ours, and nobody uses it.
    ("xtask", 5),
];

/// What is wrong with one crate's dependencies. `manifest` is its Cargo.toml; tests may use what they like.
pub fn check(file: &str, manifest: &Table) -> Vec<Problem> {
    let layers = BTreeMap::from(LAYERS);
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let Some(name) = name else { return vec![Problem::new(file, 0, "a crate has a name")] };
    let Some(layer) = layers.get(name) else {
        let text =
            format!("{name} has no layer: give it one in tests/tidy/src/layers.rs and docs/architecture.md");
        return vec![Problem::new(file, 0, text)];
    };
    let used = dependencies(manifest).filter(|used| used.starts_with("baton") || *used == "xtask");
    used.filter(|used| name == "xtask" || layers.get(used).is_none_or(|below| below >= layer))
        .map(|used| {
            let text = format!("{name} must not use {used}: dependencies point to lower layers only");
            Problem::new(file, 0, text)
        })
        .collect()
}

fn dependencies(manifest: &Table) -> impl Iterator<Item = &str> {
    let per_target = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = per_target.filter_map(Value::as_table).chain([manifest]);
    tables.flat_map(|table| {
        ["dependencies", "build-dependencies"]
            .into_iter()
            .filter_map(|kind| table.get(kind).and_then(Value::as_table))
            .flat_map(|table| table.keys().map(String::as_str))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(manifest: &str) -> usize {
        check("Cargo.toml", &manifest.parse().expect("valid TOML")).len()
    }

    #[test]
    fn dependencies_point_down() {
        let engine = "[package]\nname = 'baton-engine'\n";
        assert_eq!(count(&format!("{engine}[dependencies]\nbaton-types = {{}}\nbaton-kvcache = {{}}")), 0);
        assert_eq!(count(&format!("{engine}[dependencies]\nbaton-worker = {{}}")), 1, "up");
        assert_eq!(count(&format!("{engine}[dependencies]\nbaton-model = {{}}")), 1, "a sibling");
        assert_eq!(count(&format!("{engine}[dependencies]\nbaton-unknown = {{}}")), 1);
        assert_eq!(count(&format!("{engine}[build-dependencies]\nbaton-worker = {{}}")), 1);
        assert_eq!(count(&format!("{engine}[target.'cfg(unix)'.dependencies]\nbaton-worker = {{}}")), 1);
        assert_eq!(count(&format!("{engine}[dev-dependencies]\nbaton-worker = {{}}")), 0, "tests are free");
    }

    #[test]
    fn a_crate_has_a_layer_and_xtask_is_alone() {
        assert_eq!(count("[package]\nname = 'baton-new'"), 1);
        assert_eq!(count("[package]\nname = 'xtask'\n[dependencies]\nbaton-types = {}"), 1);
        assert_eq!(count("[package]\nname = 'baton'\n[dependencies]\nxtask = {}"), 1);
    }
}
