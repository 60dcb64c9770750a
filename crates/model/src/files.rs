//! Opening a model: finds out what is there and what it needs, reads no weights.

use crate::config::hugging_face::JsonFile;
use crate::config::{self, GenerationDefaults, ModelConfig};
use crate::error::LoadError;
use crate::format::WeightsFormat;
use crate::source::{self, TensorTable};
use crate::weights::{self, Weights};
use baton_types::TokenizerSource;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A model on disk, opened: everything but its weights.
pub struct ModelFiles {
    /// What to call the model when nobody said: the directory's or the file's name, without `.gguf`.
    pub name: String,
    /// The file or directory that was opened.
    pub path: PathBuf,
    /// Sizes and constants.
    pub config: ModelConfig,
    /// What its tokenizer is built from; shared, so that it can be built while the weights load.
    pub tokenizer: Arc<TokenizerSource>,
    /// The publisher's defaults.
    pub generation: GenerationDefaults,
    /// How the tensors are stored and how many of each there are, for logs: `"Q4_1 210, F32 61, Q8_0 1"`.
    pub stored_as: String,
    /// Time that opening took.
    pub open_time: Duration,
    pub(crate) tensors: TensorTable,
    pub(crate) is_gguf: bool,
}

/// Opens a `.gguf` file, a Hugging Face directory (`config.json` with safetensors), or a directory that holds exactly
/// one `.gguf` file. Reads configuration and tokenizer tables; tensors are mapped, not read.
///
/// # Errors
/// [`LoadError`] for anything that would keep the model from running, apart from the tensors' shapes, which
/// [`ModelFiles::load_weights`] checks, and a Hugging Face tokenizer's size, which only reading it whole would tell:
/// whoever builds it compares it with [`ModelConfig::vocab`].
pub fn open(path: &Path) -> Result<ModelFiles, LoadError> {
    let started = Instant::now();
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LoadError::NotFound { path: path.to_owned() },
        _ => LoadError::Io { path: path.to_owned(), source },
    })?;
    let mut files = if !metadata.is_dir() {
        open_gguf(path)?
    } else if path.join("config.json").is_file() {
        open_hugging_face(path)?
    } else {
        open_gguf(&only_gguf(path)?)?
    };
    check_config(&files)?;
    files.open_time = started.elapsed();
    Ok(files)
}

impl ModelFiles {
    /// Checks every tensor against the configuration, then packs all weights on the current rayon pool. `progress` is
    /// told matrices done and in total, from any thread.
    ///
    /// # Errors
    /// [`LoadError`] naming the first tensor that is missing or not what it should be.
    pub fn load_weights(
        &self,
        format: WeightsFormat,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Arc<Weights>, LoadError> {
        weights::load(self, format, progress).map(Arc::new)
    }
}

fn only_gguf(directory: &Path) -> Result<PathBuf, LoadError> {
    let io_error = |source| LoadError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            found.push(path);
        }
    }
    let not_a_model = |found: String| Err(LoadError::NotAModel { path: directory.to_owned(), found });
    match found.len() {
        0 => not_a_model("no config.json and no .gguf file in this directory".to_owned()),
        1 => Ok(found.remove(0)),
        many => not_a_model(format!("{many} .gguf files in this directory, name one of them")),
    }
}

fn open_gguf(path: &Path) -> Result<ModelFiles, LoadError> {
    let (mut metadata, tensors) = source::gguf::open(path)?;
    let config = config::gguf::model_config(&metadata, &tensors)?;
    let generation = config::gguf::generation_defaults(&metadata)?;
    let tokenizer = config::gguf::take_tokenizer(&mut metadata)?;
    if tokenizer.tokens.len() > config.vocab {
        return Err(LoadError::VocabularyTooLarge {
            path: path.to_owned(),
            tensor: config.architecture.spec().gguf.embedding.to_owned(),
            tokens: tokenizer.tokens.len(),
            rows: config.vocab,
        });
    }
    Ok(ModelFiles {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_owned(),
        config,
        tokenizer: Arc::new(TokenizerSource::Gguf(Box::new(tokenizer))),
        generation,
        stored_as: tensors.summary(),
        open_time: Duration::ZERO,
        tensors,
        is_gguf: true,
    })
}

fn open_hugging_face(directory: &Path) -> Result<ModelFiles, LoadError> {
    let config_file = JsonFile::read(&directory.join("config.json"))?;
    let config = config::hugging_face::model_config(&config_file)?;
    let generation_path = directory.join("generation_config.json");
    let generation_file = generation_path.is_file().then(|| JsonFile::read(&generation_path)).transpose()?;
    let generation = config::hugging_face::generation_defaults(&config_file, generation_file.as_ref())?;
    if !source::safetensors::is_present(directory) {
        return Err(LoadError::NotAModel {
            path: directory.to_owned(),
            found: "config.json, but neither model.safetensors nor model.safetensors.index.json".to_owned(),
        });
    }
    let tensors = source::safetensors::open(directory)?;
    // `canonicalize` gives `.` and `models/x/..` a name; a path that exists but cannot be resolved keeps its own.
    let resolved = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    Ok(ModelFiles {
        name: resolved.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: directory.to_owned(),
        config,
        tokenizer: Arc::new(TokenizerSource::HuggingFace { directory: directory.to_owned() }),
        generation,
        stored_as: tensors.summary(),
        open_time: Duration::ZERO,
        tensors,
        is_gguf: false,
    })
}

/// Relations between sizes that the forward pass relies on.
fn check_config(files: &ModelFiles) -> Result<(), LoadError> {
    let config = &files.config;
    let bad = |key: &str, expected: String, found: String| {
        Err(LoadError::BadValue { path: files.path.clone(), key: key.to_owned(), expected, found })
    };
    if !config.heads.is_multiple_of(config.kv_heads) {
        let expected = format!("a divisor of the {} attention heads", config.heads);
        return bad("number of key/value heads", expected, config.kv_heads.to_string());
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return bad("head size", "an even number of at least 2".to_owned(), config.head_dim.to_string());
    }
    if !(config.norm_eps > 0.0 && config.norm_eps < 1.0) {
        return bad("norm epsilon", "a number between 0 and 1".to_owned(), config.norm_eps.to_string());
    }
    if !(config.rope.theta.is_finite() && config.rope.theta > 0.0) {
        return bad("rope theta", "a number above 0".to_owned(), config.rope.theta.to_string());
    }
    if let config::RopeScaling::Divisors(divisors) = &config.rope.scaling
        && divisors.len() != config.head_dim / 2
    {
        let expected = format!("{} elements", config.head_dim / 2);
        return bad("tensor 'rope_freqs.weight'", expected, divisors.len().to_string());
    }
    if let Some(window) = config.sliding_window {
        tracing::warn!(
            window,
            max_position = config.max_position,
            "sliding attention windows are not built: the context is limited to the window's size"
        );
    }
    Ok(())
}
