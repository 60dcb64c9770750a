//! From a request's bytes to what the engines are asked for: parsed, rendered, tokenised, fitted into the context.

use crate::Frontend;
use crate::choice_text::TextOptions;
use crate::identity::random_u64;
use crate::openai::{
    ApiError, ChatRequest, CompletionRequest, Options, ParseContext, Prompt, Shape, StreamOptions,
};
use baton_tokenizer::{ChatPrompt, Detokenizer, TemplateError, Tokenizer};
use baton_types::{SamplingParams, TokenId};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// What the engines are asked for, and how their answers are to be shown.
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) model: String,
    pub(crate) prompts: Vec<PlannedPrompt>,
    /// Choices of each prompt.
    pub(crate) n: usize,
    /// `max_tokens` and `seed` are filled in for each sequence.
    pub(crate) sampling: SamplingParams,
    pub(crate) seed: u64,
    pub(crate) text: Arc<TextOptions>,
    pub(crate) stream: Option<StreamOptions>,
    pub(crate) cache_salt: Arc<[u8]>,
}

/// One prompt.
pub(crate) struct PlannedPrompt {
    pub(crate) tokens: Arc<[TokenId]>,
    /// 0: only the prompt is asked for.
    pub(crate) max_tokens: u32,
    pub(crate) echo: Option<Arc<EchoedPrompt>>,
}

/// A prompt that is part of the response.
pub(crate) struct EchoedPrompt {
    pub(crate) text: String,
    pub(crate) tokens: Arc<[TokenId]>,
    /// Characters before each token; empty unless log-probabilities were asked for.
    pub(crate) text_offsets: Vec<usize>,
}

/// A body up to this size is planned on the spot: that takes less than a millisecond, where a thread of its own would
/// cost some ten microseconds and a wake-up. A larger one would delay the token streams that share its thread.
const INLINE_BYTES_MAX: usize = 2048;

/// The output of a completion that does not say how long it may be, as in the OpenAI API.
const COMPLETION_TOKENS_DEFAULT: usize = 16;

/// Plans a request. As many run at once as the machine has cores; parsed JSON takes many times the memory of its text.
///
/// # Errors
/// What is wrong with the request.
pub(crate) async fn plan(frontend: &Frontend, shape: Shape, body: Bytes) -> Result<Plan, ApiError> {
    let permit = frontend.planning_permit().await;
    if body.len() <= INLINE_BYTES_MAX {
        return plan_now(frontend, shape, &body);
    }
    let frontend = frontend.clone();
    let planned = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        plan_now(&frontend, shape, &body)
    });
    planned.await.unwrap_or_else(|_| Err(ApiError::internal("Reading the request failed.")))
}

fn plan_now(frontend: &Frontend, shape: Shape, body: &[u8]) -> Result<Plan, ApiError> {
    let config = frontend.config();
    let context = ParseContext {
        served_model_names: &config.served_model_names,
        defaults: config.sampling_defaults,
        vocab_size: frontend.tokenizer().vocab_size(),
    };
    // Nesting is bounded by serde_json (128 levels).
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("The request's body is not valid JSON: {error}.")))?;
    match shape {
        Shape::Chat => plan_chat(frontend, ChatRequest::parse(body, &context)?),
        Shape::Completion => plan_completion(frontend, CompletionRequest::parse(body, &context)?),
    }
}

fn plan_chat(frontend: &Frontend, request: ChatRequest) -> Result<Plan, ApiError> {
    let template = frontend.tokenizer().chat_template().ok_or_else(ApiError::no_chat_template)?;
    let prompt = ChatPrompt {
        messages: &request.messages,
        tools: None,
        add_generation_prompt: request.add_generation_prompt,
        continue_final_message: request.continue_final_message,
        extra: &request.template_extra,
    };
    let text = template.render(&prompt).map_err(|error| match error {
        TemplateError::Rejected(problem) => {
            ApiError::invalid("messages", format!("were refused by the model's chat template: {problem}"))
        }
        TemplateError::Broken(problem) => {
            ApiError::internal(format!("The chat template is broken: {problem}."))
        }
    })?;
    // The template writes special tokens itself.
    let tokens = encode(frontend, "messages", &text, request.options.add_special_tokens.unwrap_or(false))?;
    let max_tokens = fit(frontend, "messages", tokens.len(), request.max_tokens, usize::MAX)?;
    check_min_tokens(&request.options, max_tokens)?;
    let prompts = vec![PlannedPrompt { tokens, max_tokens, echo: None }];
    Ok(assemble(
        frontend,
        Shape::Chat,
        request.options,
        prompts,
        (request.logprobs, None),
        request.continue_final_message,
    ))
}

fn plan_completion(frontend: &Frontend, request: CompletionRequest) -> Result<Plan, ApiError> {
    let CompletionRequest { options, prompts, max_tokens, logprobs, echo } = request;
    let mut planned = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let tokens = match &prompt {
            Prompt::Text(text) => {
                encode(frontend, "prompt", text, options.add_special_tokens.unwrap_or(true))?
            }
            Prompt::Tokens(tokens) => tokens.as_slice().into(),
        };
        let max_tokens = fit(frontend, "prompt", tokens.len(), max_tokens, COMPLETION_TOKENS_DEFAULT)?;
        check_min_tokens(&options, max_tokens)?;
        let echo = echo.then(|| {
            let skip_special = options.skip_special_tokens;
            Arc::new(EchoedPrompt::new(
                frontend.tokenizer(),
                prompt,
                &tokens,
                skip_special,
                logprobs.is_some(),
            ))
        });
        planned.push(PlannedPrompt { tokens, max_tokens, echo });
    }
    let prompt_logprobs = logprobs.filter(|_| echo);
    Ok(assemble(frontend, Shape::Completion, options, planned, (logprobs, prompt_logprobs), true))
}

fn assemble(
    frontend: &Frontend,
    shape: Shape,
    options: Options,
    prompts: Vec<PlannedPrompt>,
    logprobs: (Option<u8>, Option<u8>),
    continues: bool,
) -> Plan {
    let (logprobs, prompt_logprobs) = logprobs;
    let mut end_ids = options.sampling.stop_token_ids.clone();
    if !options.sampling.ignore_eos {
        end_ids.extend_from_slice(frontend.tokenizer().eos_ids());
        end_ids.extend_from_slice(&frontend.config().eos_ids);
    }
    let text = TextOptions {
        skip_special: options.skip_special_tokens,
        continues,
        stop: options.stop,
        include_stop: options.include_stop_str,
        min_tokens: options.sampling.min_tokens as usize,
        end_ids,
        logprobs: logprobs.is_some(),
    };
    Plan {
        shape,
        model: options.model,
        prompts,
        n: options.n,
        sampling: SamplingParams { logprobs, prompt_logprobs, ..options.sampling },
        seed: options.seed.unwrap_or_else(random_u64),
        text: Arc::new(text),
        stream: options.stream,
        cache_salt: options.cache_salt.into_bytes().into(),
    }
}

fn encode(
    frontend: &Frontend,
    param: &str,
    text: &str,
    add_special: bool,
) -> Result<Arc<[TokenId]>, ApiError> {
    match frontend.tokenizer().encode(text, add_special) {
        Ok(tokens) if tokens.is_empty() => Err(ApiError::invalid(param, "must have at least one token")),
        Ok(tokens) => Ok(tokens.into()),
        Err(error) => Err(ApiError::invalid(param, format!("cannot be tokenised: {error}"))),
    }
}

/// How long the output may be: as asked for, or `default` where the context allows it.
fn fit(
    frontend: &Frontend,
    param: &str,
    prompt_tokens: usize,
    asked: Option<u32>,
    default: usize,
) -> Result<u32, ApiError> {
    let limit = frontend.config().max_model_len;
    if prompt_tokens >= limit {
        let message = format!(
            "This model's maximum context length is {limit} tokens, but '{param}' has {prompt_tokens} tokens, and at \
             least one must be left for the output; shorten it."
        );
        return Err(ApiError::context_length(param, message));
    }
    let rest = limit - prompt_tokens;
    let tokens = match asked {
        Some(asked) if asked as usize > rest => {
            let message = format!(
                "This model's maximum context length is {limit} tokens, but '{param}' has {prompt_tokens} tokens and \
                 'max_tokens' asks for {asked} more; at most {rest} are left."
            );
            return Err(ApiError::context_length("max_tokens", message));
        }
        Some(asked) => return Ok(asked),
        None => rest.min(default),
    };
    Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn check_min_tokens(options: &Options, max_tokens: u32) -> Result<(), ApiError> {
    let min_tokens = options.sampling.min_tokens;
    if min_tokens > max_tokens {
        let problem = format!("is {min_tokens}, more than the {max_tokens} tokens that the output may have");
        return Err(ApiError::invalid("min_tokens", problem));
    }
    Ok(())
}

impl EchoedPrompt {
    fn new(
        tokenizer: &Tokenizer,
        prompt: Prompt,
        tokens: &Arc<[TokenId]>,
        skip_special: bool,
        offsets: bool,
    ) -> Self {
        let text = match prompt {
            Prompt::Text(text) => text,
            Prompt::Tokens(tokens) => tokenizer.decode(&tokens, skip_special),
        };
        let text_offsets =
            if offsets { text_offsets(tokenizer, &text, tokens, skip_special) } else { Vec::new() };
        Self { text, tokens: Arc::clone(tokens), text_offsets }
    }
}

/// Characters of `text` before each of its tokens; never more than it has, should decoding not give it back exactly.
fn text_offsets(tokenizer: &Tokenizer, text: &str, tokens: &[TokenId], skip_special: bool) -> Vec<usize> {
    let text_len = text.chars().count();
    let mut detokenizer = Detokenizer::new(tokenizer, skip_special);
    let mut chars = 0;
    let mut offset = |id: &TokenId| {
        let before = chars;
        chars += detokenizer.push(*id).chars().count();
        before.min(text_len)
    };
    tokens.iter().map(&mut offset).collect()
}
