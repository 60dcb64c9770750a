//! The reference files, as the README beside them describes them.

use baton_types::TokenId;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `smollm2_greedy.json`.
#[derive(Debug, Deserialize)]
pub struct Chats {
    /// Twelve chats.
    pub cases: Vec<Chat>,
}

/// One chat with its greedy continuation.
#[derive(Debug, Deserialize)]
pub struct Chat {
    /// The rendered prompt's tokens.
    pub prompt_ids: Vec<u32>,
    /// What float32 picks.
    pub greedy_ids: Vec<u32>,
    /// Steps before the first whose two best logits are closer than 0.01.
    pub safe_len: usize,
    /// The likeliest first tokens.
    pub first_top5: Vec<Likely>,
}

/// A token and its log-probability.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Likely {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// `NAME/golden.json`.
#[derive(Debug, Deserialize)]
pub struct Tiny {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// What float32 picks after it.
    pub greedy_ids: Vec<u32>,
    /// Best minus second-best logit of each pick.
    pub margins: Vec<f32>,
}

impl Tiny {
    /// Steps before the first whose choice another order of summation might change.
    pub fn safe_len(&self) -> usize {
        self.margins.iter().position(|margin| *margin < 0.005).unwrap_or(self.margins.len())
    }
}

/// The folder of reference files.
pub fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The twelve chats.
pub fn chats() -> Vec<Chat> {
    parse::<Chats>(&directory().join("smollm2_greedy.json")).cases
}

/// The reference of a tiny model.
pub fn tiny(name: &str) -> (PathBuf, Tiny) {
    let model = directory().join(name);
    let golden = parse(&model.join("golden.json"));
    (model, golden)
}

/// Token ids of their numbers.
pub fn token_ids(ids: &[u32]) -> Vec<TokenId> {
    ids.iter().map(|id| TokenId(*id)).collect()
}

/// Where the demo model is: `BATON_TEST_MODEL`, or where `cargo xtask test-deps` puts it.
///
/// # Panics
/// If it is not there.
#[expect(clippy::disallowed_methods, reason = "how a test is told of another model")]
pub fn demo_model() -> PathBuf {
    let placed = directory().join("../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("BATON_TEST_MODEL").map_or(placed, PathBuf::from);
    assert!(path.is_file(), "the demo model is not at {}; run `cargo xtask test-deps`", path.display());
    path
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
