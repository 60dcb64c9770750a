//! Errors in the shape of the OpenAI API: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use baton_types::AdmitError;
use bytes::BytesMut;

use crate::json::{push_json_string, push_str};

/// A refusal or failure, for the client to read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u32>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: Some(code), retry_after: None }
    }

    fn of_param(code: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, INVALID, code, message) }
    }

    /// 400: the body is not a JSON object.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid_json", message)
    }

    /// 400: `param` has a value of the wrong type.
    pub(crate) fn wrong_type(param: impl Into<String>, expected: &str, got: &str) -> Self {
        let param = param.into();
        let message = format!("'{param}' must be {expected}, not {got}.");
        Self::of_param("invalid_type", param, message)
    }

    /// 400: `param` has the right type and a value that cannot be.
    pub(crate) fn invalid(param: impl Into<String>, problem: impl AsRef<str>) -> Self {
        let param = param.into();
        let message = format!("'{param}' {}.", problem.as_ref());
        Self::of_param("invalid_value", param, message)
    }

    /// 400: `param` is required.
    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("'{param}' is required.");
        Self::of_param("missing_required_parameter", param, message)
    }

    /// 400: no such parameter.
    pub(crate) fn unknown(param: impl Into<String>) -> Self {
        let param = param.into();
        let message =
            format!("'{param}' is not a parameter of this endpoint; remove it or correct its spelling.");
        Self::of_param("unknown_parameter", param, message)
    }

    /// 400: the parameter exists elsewhere, and this server cannot do what it asks for.
    pub(crate) fn unsupported(param: impl Into<String>, hint: &str) -> Self {
        let param = param.into();
        let message = format!("'{param}' is not supported by this server{hint}.");
        Self::of_param("unsupported_parameter", param, message)
    }

    /// 400: prompt, or prompt and output, do not fit the context.
    pub(crate) fn context_length(param: &str, message: String) -> Self {
        Self::of_param("context_length_exceeded", param, message)
    }

    /// 400: the model has no chat template.
    pub(crate) fn no_chat_template() -> Self {
        let message = "This model has no chat template; send a prompt to /v1/completions instead.";
        Self::of_param("no_chat_template", "messages", message)
    }

    /// 401.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key", message)
    }

    /// 404: another model.
    pub(crate) fn model_not_found(model: &str, served: &str) -> Self {
        let shown: String = model.chars().take(128).collect();
        let message = format!("The model '{shown}' does not exist; this server has '{served}'.");
        let error = Self::new(StatusCode::NOT_FOUND, INVALID, "model_not_found", message);
        Self { param: Some("model".to_owned()), ..error }
    }

    /// 404: no such path.
    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        let shown: String = path.chars().take(128).collect();
        Self::new(StatusCode::NOT_FOUND, INVALID, "unknown_url", format!("There is no {method} {shown}."))
    }

    /// 405.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", message)
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn body_timeout(seconds: u64) -> Self {
        let message = format!("The request's body did not arrive within {seconds} s.");
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout", message)
    }

    /// 413.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("The request's body is larger than the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large", message)
    }

    /// 429: the frontend has as many requests as it may have.
    pub(crate) fn overloaded(limit: usize) -> Self {
        let message = format!("The server works on {limit} requests, as many as it takes; try again later.");
        Self { retry_after: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, RATE, RATE_CODE, message) }
    }

    /// 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error", message)
    }

    /// 503: not here, not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, "service_unavailable", message);
        Self { retry_after: Some(5), ..error }
    }

    /// 504: the deadline passed.
    pub(crate) fn deadline(seconds: u64) -> Self {
        let message = format!("The request was not finished within {seconds} s.");
        Self::new(StatusCode::GATEWAY_TIMEOUT, SERVER, "deadline_exceeded", message)
    }

    /// Appends the JSON object.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        push_str(out, "{\"error\":{\"message\":");
        push_json_string(out, &self.message);
        push_str(out, ",\"type\":");
        push_json_string(out, self.kind);
        push_str(out, ",\"param\":");
        push_optional(out, self.param.as_deref());
        push_str(out, ",\"code\":");
        push_optional(out, self.code);
        push_str(out, "}}");
    }
}

const RATE: &str = "rate_limit_error";
const RATE_CODE: &str = "rate_limit_exceeded";

fn push_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => push_json_string(out, text),
        None => push_str(out, "null"),
    }
}

impl From<AdmitError> for ApiError {
    fn from(error: AdmitError) -> Self {
        let message = format!("The request was not taken: {error}.");
        match error {
            AdmitError::QueueFull { .. } => Self {
                retry_after: Some(1),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, RATE, RATE_CODE, message)
            },
            AdmitError::PromptTooLong { .. } => Self::context_length("prompt", message),
            AdmitError::PromptEmpty => Self::of_param("invalid_value", "prompt", message),
            AdmitError::ShuttingDown | AdmitError::EngineDown(_) => Self::unavailable(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = BytesMut::with_capacity(160 + self.message.len());
        self.write(&mut body);
        let mut response = (self.status, body.freeze()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
