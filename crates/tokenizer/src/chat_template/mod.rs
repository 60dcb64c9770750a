//! Chat messages to a prompt.

use serde_json::{Map, Value};
use thiserror::Error;

/// The chat template of one model.
pub struct ChatTemplate {}

/// What a chat template is given.
#[derive(Clone, Copy, Debug)]
pub struct ChatPrompt<'a> {
    /// The conversation, in the form of the OpenAI API.
    pub messages: &'a [Value],
    /// The list of tools, in the form of the OpenAI API.
    pub tools: Option<&'a Value>,
    /// End the prompt with the opening of an assistant message.
    pub add_generation_prompt: bool,
    /// Leave the last message open, for the model to continue it.
    pub continue_final_message: bool,
    /// Further variables for the template (`documents`, `enable_thinking`).
    pub extra: &'a Map<String, Value>,
}

/// Why a chat did not become a prompt.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// Change the messages: the template or this crate refuses them. The text is for the client.
    #[error("{0}")]
    Rejected(String),
    /// Repair the template.
    #[error("the chat template is broken: {0}")]
    Broken(String),
}

impl ChatTemplate {
    /// The prompt of a chat.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] is the client's mistake, [`TemplateError::Broken`] the template's.
    pub fn render(&self, prompt: &ChatPrompt<'_>) -> Result<String, TemplateError> {
        let _ = prompt;
        Ok(String::new())
    }
}
