//! Log output: lines for people on a terminal, JSON for everything else, always on standard error.

use std::io::{IsTerminal, stderr};
use thiserror::Error;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Human`](Self::Human) where standard error is a terminal, otherwise [`Json`](Self::Json).
    #[default]
    Auto,
    /// One line of text an event.
    Human,
    /// One JSON object an event.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// Correct the level.
    #[error(
        "log level {level:?} is not understood ({reason}); write e.g. `info` or `info,baton_engine=debug`"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Set it up once.
    #[error("logging is set up already: {0}")]
    Taken(String),
}

/// Sends `tracing` events of this process to standard error. `level` is a level or a comma-separated list of
/// `target=level`, in the syntax of [`EnvFilter`]; the environment is not read.
///
/// # Errors
/// [`LoggingError`]: a level that is not understood, or a second call.
pub fn init_logging(level: &str, format: LogFormat) -> Result<(), LoggingError> {
    let filter = parse_level(level)?;
    let builder = fmt().with_env_filter(filter).with_writer(stderr);
    let json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let installed = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.compact().with_ansi(stderr().is_terminal()).try_init()
    };
    installed.map_err(|error| LoggingError::Taken(error.to_string()))
}

fn parse_level(level: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |reason: String| LoggingError::Level { level: level.to_owned(), reason };
    if level.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    EnvFilter::builder().parse(level).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_parsed_or_refused_with_their_text() {
        for good in ["info", "WARN", "info,baton_engine=debug", "off"] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["", "info,baton=loud", "=,="] {
            let error = parse_level(bad).expect_err(bad).to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
