//! From tokens to the text of one choice: detokenised, cut before a stop string, without the end token, with the
//! log-probabilities of exactly the tokens whose text is shown.

use baton_tokenizer::{Detokenizer, StopStrings, Tokenizer};
use baton_types::{OutputToken, TokenId, TokenLogprobs};
use std::sync::Arc;

/// What a choice gained since it was last sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    pub(crate) text: String,
    /// Where asked for.
    pub(crate) logprobs: Vec<LogprobEntry>,
}

/// A token with its log-probabilities and its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogprobEntry {
    pub(crate) id: TokenId,
    /// Characters of the choice's text before this token.
    pub(crate) text_offset: usize,
    /// `None` for the first token of a prompt.
    pub(crate) logprobs: Option<TokenLogprobs>,
}

/// How a choice ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Stop,
    Length,
}

impl Ending {
    /// The `finish_reason` of the OpenAI API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What the choices of a request have in common.
#[derive(Clone, Debug)]
pub(crate) struct TextOptions {
    pub(crate) skip_special: bool,
    /// The text goes on where a prompt's text ended, rather than start anew.
    pub(crate) continues: bool,
    pub(crate) stop: Vec<String>,
    /// The text ends after the stop string, not before it.
    pub(crate) include_stop: bool,
    /// Stop strings count only after this many tokens.
    pub(crate) min_tokens: usize,
    /// Tokens that may turn out to be the end, and are not text then.
    pub(crate) end_ids: Vec<TokenId>,
    pub(crate) logprobs: bool,
}

/// The text of one choice as it grows.
pub(crate) struct ChoiceText {
    options: Arc<TextOptions>,
    detokenizer: Detokenizer,
    stops: Option<StopStrings>,
    /// The last token, while it may be the end.
    held: Option<OutputToken>,
    /// Tokens taken in.
    tokens: usize,
    /// Characters detokenised, shown or not.
    chars_seen: usize,
    /// Characters that became part of the text.
    chars_shown: usize,
    /// Entries of tokens whose text is not shown yet.
    logprobs_held: Vec<LogprobEntry>,
    delta: Delta,
}

impl ChoiceText {
    /// An empty text.
    pub(crate) fn new(tokenizer: &Tokenizer, options: Arc<TextOptions>) -> Self {
        let stops = (!options.stop.is_empty()).then(|| StopStrings::new(options.stop.clone()));
        let detokenizer = match options.continues {
            true => Detokenizer::continuing(tokenizer, options.skip_special),
            false => Detokenizer::new(tokenizer, options.skip_special),
        };
        Self {
            detokenizer,
            stops,
            options,
            held: None,
            tokens: 0,
            chars_seen: 0,
            chars_shown: 0,
            logprobs_held: Vec::new(),
            delta: Delta::default(),
        }
    }

    /// Starts the text with a prompt; stop strings do not look at it.
    pub(crate) fn echo(&mut self, text: &str, logprobs: Vec<LogprobEntry>) {
        self.delta.text.push_str(text);
        self.delta.logprobs.extend(logprobs);
        self.chars_seen = text.chars().count();
        self.chars_shown = self.chars_seen;
    }

    /// Takes the next token. True: a stop string ended the text.
    pub(crate) fn push(&mut self, token: OutputToken) -> bool {
        self.tokens += 1;
        if let Some(held) = self.held.take()
            && self.show(held)
        {
            return true;
        }
        if self.options.end_ids.contains(&token.id) {
            self.held = Some(token);
            return false;
        }
        self.show(token)
    }

    /// No more tokens come; `end` is the end token if there was one. True: a stop string ended the text after all.
    pub(crate) fn finish(&mut self, end: Option<TokenId>) -> bool {
        if let Some(held) = self.held.take()
            && Some(held.id) != end
            && self.show(held)
        {
            return true;
        }
        let rest = self.detokenizer.finish();
        if self.append(&rest) {
            return true;
        }
        if let Some(stops) = &mut self.stops {
            let rest = stops.finish();
            self.delta.text.push_str(&rest);
        }
        self.delta.logprobs.append(&mut self.logprobs_held);
        false
    }

    /// What is to be sent.
    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Forgets what was sent, and keeps its memory for what follows.
    pub(crate) fn clear_delta(&mut self) {
        self.delta.text.clear();
        self.delta.logprobs.clear();
    }

    /// Tokens taken in so far.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    fn show(&mut self, token: OutputToken) -> bool {
        if self.options.logprobs {
            self.logprobs_held.push(LogprobEntry {
                id: token.id,
                text_offset: self.chars_seen,
                logprobs: token.logprobs,
            });
        }
        let piece = self.detokenizer.push(token.id);
        self.append(&piece)
    }

    fn append(&mut self, piece: &str) -> bool {
        if self.options.logprobs {
            self.chars_seen += piece.chars().count();
        }
        let stops = self.stops.as_mut().filter(|_| self.tokens > self.options.min_tokens);
        let (shown_from, mut matched) = (self.delta.text.len(), None);
        match stops {
            None => self.delta.text.push_str(piece),
            Some(stops) => {
                let step = stops.push(piece);
                self.delta.text.push_str(&step.text);
                matched = step.matched;
            }
        }
        if let Some(index) = matched.filter(|_| self.options.include_stop) {
            self.delta.text.push_str(&self.options.stop[index]);
        }
        if self.options.logprobs {
            self.chars_shown += self.delta.text[shown_from..].chars().count();
            self.release_logprobs();
        }
        matched.is_some()
    }

    /// An entry goes out with the first character of its token, so never before a stop string could still cut it off.
    fn release_logprobs(&mut self) {
        let ready = self.logprobs_held.partition_point(|entry| entry.text_offset < self.chars_shown);
        self.delta.logprobs.extend(self.logprobs_held.drain(..ready));
    }
}
