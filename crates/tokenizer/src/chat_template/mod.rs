//! Chat messages to a prompt, by the model's own Jinja template.
//!
//! Templates are written against Hugging Face transformers, so the environment copies what that gives them
//! (<https://huggingface.co/docs/transformers/chat_templating>): its filters, functions, whitespace rules, and Python's
//! way of writing values.

mod environment;
mod messages;
mod python;
mod strftime;

use environment::{Failure, TOOL_USE};
use messages::{ContentForms, Ending};
use minijinja::Environment;
use serde_json::{Map, Value};
use thiserror::Error;

/// The chat template of one model.
pub struct ChatTemplate(Result<Compiled, TemplateError>);

struct Compiled {
    environment: Environment<'static>,
    special_tokens: Map<String, Value>,
    contents: ContentForms,
}

/// The texts of a model's templates.
pub(crate) struct TemplateSources {
    /// For every chat.
    pub(crate) default: String,
    /// For chats with tools, where the model has one of its own for them.
    pub(crate) tool_use: Option<String>,
}

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
    /// Further variables for the template (`documents`, `enable_thinking`). They cannot replace the ones above.
    pub extra: &'a Map<String, Value>,
}

/// Why a chat did not become a prompt.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// Change the messages: the template or this crate refuses them. The text is for the client.
    #[error("{0}")]
    Rejected(String),
    /// Repair the template, or change the messages that it did not foresee.
    #[error("the chat template is broken: {0}")]
    Broken(String),
}

impl ChatTemplate {
    /// Compiles a template. `special_tokens` are variables for it: `bos_token`, `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] if it does not parse.
    pub fn new(template: &str, special_tokens: Map<String, Value>) -> Result<Self, TemplateError> {
        let template =
            Self::from_sources(&TemplateSources { default: template.into(), tool_use: None }, special_tokens);
        template.0.map(|compiled| Self(Ok(compiled)))
    }

    /// Compiles a model's templates. One that does not parse is kept as an error, for [`render`](Self::render) to tell.
    pub(crate) fn from_sources(sources: &TemplateSources, special_tokens: Map<String, Value>) -> Self {
        Self(environment::build(sources).map(|environment| {
            let mut compiled = Compiled { environment, special_tokens, contents: ContentForms::default() };
            compiled.contents = ContentForms::probe(|messages| compiled.probe(messages));
            compiled
        }))
    }

    /// Why the template does not parse.
    pub(crate) fn problem(&self) -> Option<&TemplateError> {
        self.0.as_ref().err()
    }

    /// The prompt of a chat. Contents that are lists of text parts become plain text (parts joined by line ends) for a
    /// template that expects texts, and texts become lists for one that expects lists.
    ///
    /// # Errors
    /// [`TemplateError::Rejected`] is the client's mistake: the template raised an exception, a content has a part that
    /// is not text, or there is no final message to continue. [`TemplateError::Broken`] is the template's.
    pub fn render(&self, prompt: &ChatPrompt<'_>) -> Result<String, TemplateError> {
        let compiled = self.0.as_ref().map_err(Clone::clone)?;
        if prompt.add_generation_prompt && prompt.continue_final_message {
            let problem = "`continue_final_message` and `add_generation_prompt` exclude each other";
            return Err(TemplateError::Rejected(problem.into()));
        }
        let mut messages = messages::prepare(prompt.messages, compiled.contents)?;
        let ending = if prompt.continue_final_message { Some(Ending::mark(&mut messages)?) } else { None };
        let text = compiled.render(&messages, prompt).map_err(TemplateError::from)?;
        match ending {
            Some(ending) => ending.cut(text),
            None => Ok(text),
        }
    }
}

impl Compiled {
    fn render(&self, messages: &[Value], prompt: &ChatPrompt<'_>) -> Result<String, minijinja::Error> {
        let mut variables = self.special_tokens.clone();
        variables.extend([("documents".to_owned(), Value::Null)]);
        variables.extend(prompt.extra.clone());
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), prompt.tools.cloned().unwrap_or_default());
        variables.insert("add_generation_prompt".into(), prompt.add_generation_prompt.into());
        let tool_use = prompt.tools.and_then(|_| self.environment.get_template(TOOL_USE).ok());
        let template = match tool_use {
            Some(template) => template,
            None => self.environment.get_template(environment::DEFAULT)?,
        };
        template.render(variables)
    }

    /// What the template makes of some messages, if it takes them.
    fn probe(&self, messages: &[Value]) -> Option<String> {
        let prompt = ChatPrompt {
            messages,
            tools: None,
            add_generation_prompt: false,
            continue_final_message: false,
            extra: &Map::new(),
        };
        self.render(messages, &prompt).ok()
    }
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        match environment::failure(&error) {
            Failure::Raised(message) => Self::Rejected(message),
            Failure::Other(problem) => Self::Broken(problem),
        }
    }
}
