//! How a request wants its tokens chosen.

use crate::TokenId;

/// Sampling parameters of one sequence, already validated. The defaults are those of the OpenAI API where it has one,
/// otherwise "no effect".
///
/// Order of application: `logit_bias`, `repetition_penalty`, `presence_penalty` and `frequency_penalty`, banned tokens,
/// `temperature`, `top_k`, `top_p`, `min_p`. Log-probabilities are those of the model before any of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k most likely tokens.
    pub top_k: Option<u32>,
    /// Keep the smallest set of most likely tokens whose probability reaches this; in (0, 1].
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; in [0, 1].
    pub min_p: f32,
    /// Subtracted once from the logit of each token that was output before.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it was output before.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the output (Keskar et al. 2019); > 0.
    pub repetition_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// With a token's position, the key of its random number.
    pub seed: u64,
    /// Output ends after any of these, besides the model's own end tokens.
    pub stop_token_ids: Vec<TokenId>,
    /// End tokens are banned until this many tokens are output.
    pub min_tokens: u32,
    /// Output ends after this many tokens; at least 1.
    pub max_tokens: u32,
    /// The model's end tokens do not end the output.
    pub ignore_eos: bool,
    /// Report the chosen token's log-probability and those of this many most likely tokens.
    pub logprobs: Option<u8>,
    /// The same for each prompt token. Such a prompt is computed whole: cached blocks hold no logits.
    pub prompt_logprobs: Option<u8>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            stop_token_ids: Vec::new(),
            min_tokens: 0,
            max_tokens: 16,
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Whether choosing a token needs to know the tokens before it.
    pub fn needs_history(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 || self.repetition_penalty != 1.0
    }
}

/// Log-probabilities at one position: of the token that stands there, and of the most likely ones, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of the model's probability of the token that stands here.
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(TokenId, f32)>,
}
