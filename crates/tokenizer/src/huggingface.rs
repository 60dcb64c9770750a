//! A tokenizer from a Hugging Face directory.

use crate::chat_template::TemplateSources;
use crate::decode_rule::DecodeRule;
use crate::token_table::{TokenEntry, TokenKind, TokenTable};
use crate::tokenizer::Parts;
use crate::{ChatTemplate, TokenizerError};
use baton_types::TokenId;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};
use tokenizers::{AddedToken, Tokenizer};

/// Reads `tokenizer.json` and, where they exist, `tokenizer_config.json`, `special_tokens_map.json`,
/// `generation_config.json` (further end tokens) and the chat template's own files.
///
/// # Errors
/// [`TokenizerError`] names the file.
pub(crate) fn load(directory: &Path) -> Result<(Parts, Option<ChatTemplate>), TokenizerError> {
    let config = read_object(directory, "tokenizer_config.json")?.unwrap_or_default();
    let map = read_object(directory, "special_tokens_map.json")?.unwrap_or_default();
    let mut encoder = read_tokenizer(directory)?;
    add_missing_tokens(
        &mut encoder,
        &config,
        &directory.join("tokenizer_config.json").display().to_string(),
    )?;

    let special_tokens = special_tokens(&config, &map);
    let origin = directory.join("tokenizer.json").display().to_string();
    let decoder = serde_json::to_value(encoder.get_decoder()).map_err(|error| invalid(&origin, &error))?;
    let rule = DecodeRule::from_json(&decoder, &origin)?;
    let table = token_table(&encoder, &rule, &origin)?;
    let eos_ids = eos_ids(directory, &encoder, &special_tokens)?;
    let template = template_sources(directory, &config)?
        .map(|sources| ChatTemplate::from_sources(&sources, special_tokens.clone()));
    Ok((Parts { encoder, prefix: Vec::new(), table, eos_ids, special_tokens }, template))
}

fn read_tokenizer(directory: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = directory.join("tokenizer.json");
    let file = path.display().to_string();
    let bytes = fs::read(&path).map_err(|error| TokenizerError::Missing {
        file: file.clone(),
        problem: if error.kind() != io::ErrorKind::NotFound {
            error.to_string()
        } else if directory.join("tokenizer.model").exists() {
            "there is only SentencePiece's `tokenizer.model`; convert it, for example by loading the directory with \
             `AutoTokenizer` of Hugging Face transformers and saving it again"
                .into()
        } else {
            "there is no such file; the model directory has no tokenizer".into()
        },
    })?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| invalid(&file, error.as_ref()))?;
    // Both are of training: a server must neither cut a prompt silently nor lengthen it.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| invalid(&file, error.as_ref()))?;
    Ok(tokenizer)
}

/// Adds tokens that only `tokenizer_config.json` knows (`added_tokens_decoder`).
fn add_missing_tokens(
    encoder: &mut Tokenizer,
    config: &Map<String, Value>,
    origin: &str,
) -> Result<(), TokenizerError> {
    let Some(Value::Object(added)) = config.get("added_tokens_decoder") else { return Ok(()) };
    let known = encoder.get_added_tokens_decoder();
    let mut missing = Vec::new();
    for (id, token) in added {
        let id: u32 =
            id.parse().map_err(|_| invalid(origin, &format!("added token id `{id}` is no number")))?;
        if !known.contains_key(&id)
            && let Some(content) = token["content"].as_str()
        {
            let flag = |name: &str| token[name].as_bool().unwrap_or(false);
            let added = AddedToken::from(content, flag("special")).normalized(flag("normalized"));
            let added = added.lstrip(flag("lstrip")).rstrip(flag("rstrip")).single_word(flag("single_word"));
            missing.push((id, added));
        }
    }
    missing.sort_by_key(|(id, _)| *id);
    let tokens: Vec<_> = missing.iter().map(|(_, token)| token.clone()).collect();
    encoder.add_tokens(tokens).map_err(|error| invalid(origin, error.as_ref()))?;
    for (id, token) in missing {
        let got = encoder.token_to_id(&token.content);
        if got != Some(id) {
            let problem =
                format!("added token `{}` has id {id}, but tokenizer.json gives it {got:?}", token.content);
            return Err(invalid(origin, &problem));
        }
    }
    Ok(())
}

fn token_table(encoder: &Tokenizer, rule: &DecodeRule, origin: &str) -> Result<TokenTable, TokenizerError> {
    /// Far above any vocabulary; a wrong id must not make a table of gigabytes.
    const VOCABULARY_MAX: u32 = 1 << 22;
    let vocabulary = encoder.get_vocab(true);
    let added = encoder.get_added_tokens_decoder();
    let last = vocabulary.values().copied().max().unwrap_or(0);
    if last >= VOCABULARY_MAX {
        return Err(invalid(origin, &format!("token id {last} is too large")));
    }
    let by_id: HashMap<u32, &str> = vocabulary.iter().map(|(text, id)| (*id, text.as_str())).collect();
    Ok(TokenTable::new(
        rule,
        (0..last as usize + 1).map(|id| {
            let id = id as u32;
            let kind = added.get(&id).map_or(TokenKind::Piece, |token| {
                if token.special { TokenKind::Special } else { TokenKind::Added }
            });
            let text =
                added.get(&id).map(|token| token.content.as_str()).or_else(|| by_id.get(&id).copied())?;
            Some(TokenEntry { text, kind })
        }),
    ))
}

/// `bos_token` and its like as plain texts: `tokenizer_config.json` wins over `special_tokens_map.json`.
fn special_tokens(config: &Map<String, Value>, map: &Map<String, Value>) -> Map<String, Value> {
    const NAMES: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let text = |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(Value::from);
    let find = |name: &str| [config, map].into_iter().find_map(|from| from.get(name).and_then(text));
    NAMES.into_iter().filter_map(|name| Some((name.to_owned(), find(name)?))).collect()
}

fn eos_ids(
    directory: &Path,
    encoder: &Tokenizer,
    special_tokens: &Map<String, Value>,
) -> Result<Vec<TokenId>, TokenizerError> {
    let own =
        special_tokens.get("eos_token").and_then(Value::as_str).and_then(|text| encoder.token_to_id(text));
    let generation = read_object(directory, "generation_config.json")?.unwrap_or_default();
    let further = match generation.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(id) => std::slice::from_ref(id),
        None => &[],
    };
    let mut ids: Vec<TokenId> = own.into_iter().map(TokenId).collect();
    for id in further.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).map(TokenId) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The chat template: `chat_template.jinja` wins over `chat_template.json`, and that over `tokenizer_config.json`.
fn template_sources(
    directory: &Path,
    config: &Map<String, Value>,
) -> Result<Option<TemplateSources>, TokenizerError> {
    if let Some(default) = read_optional(directory, "chat_template.jinja")? {
        return Ok(Some(TemplateSources { default, tool_use: None }));
    }
    let json = read_object(directory, "chat_template.json")?.unwrap_or_default();
    let (file, template) = match json.get("chat_template") {
        Some(template) => ("chat_template.json", Some(template)),
        None => ("tokenizer_config.json", config.get("chat_template")),
    };
    let Some(template) = template.filter(|template| !template.is_null()) else { return Ok(None) };
    if let Some(default) = template.as_str() {
        return Ok(Some(TemplateSources { default: default.into(), tool_use: None }));
    }
    let named = |name: &str| {
        let entry = template.as_array()?.iter().find(|entry| entry["name"] == name)?;
        entry["template"].as_str().map(str::to_owned)
    };
    let default = named("default").ok_or_else(|| {
        let origin = directory.join(file).display().to_string();
        invalid(&origin, &"`chat_template` is neither a text nor a list with a template named `default`")
    })?;
    Ok(Some(TemplateSources { default, tool_use: named("tool_use") }))
}

fn read_object(directory: &Path, name: &str) -> Result<Option<Map<String, Value>>, TokenizerError> {
    let Some(text) = read_optional(directory, name)? else { return Ok(None) };
    let object = serde_json::from_str(&text);
    object.map(Some).map_err(|error| invalid(&directory.join(name).display().to_string(), &error))
}

fn read_optional(directory: &Path, name: &str) -> Result<Option<String>, TokenizerError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(TokenizerError::Missing { file: path.display().to_string(), problem: error.to_string() })
        }
    }
}

fn invalid(origin: &str, problem: &(impl std::fmt::Display + ?Sized)) -> TokenizerError {
    TokenizerError::Invalid { origin: origin.into(), problem: problem.to_string() }
}
