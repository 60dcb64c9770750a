//! What happens around every request: its id, its key, its record, and a panic turned into an error.

use crate::Frontend;
use crate::identity::random_id;
use crate::openai::ApiError;
use crate::record::Record;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tracing::error;

const REQUEST_ID: &str = "x-request-id";
/// A UUID has 36; longer ones are replaced.
const REQUEST_ID_BYTES_MAX: usize = 128;

pub(super) async fn track(State(frontend): State<Frontend>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let path = request.uri().path();
    let record = Arc::new(Record::new(&frontend, Arc::clone(&request_id), endpoint(path)));
    let allowed = if path.starts_with("/v1/") { authorize(&frontend, request.headers()) } else { Ok(()) };
    let mut response = match allowed {
        Ok(()) => {
            request.extensions_mut().insert(Arc::clone(&record));
            AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
                error!(request_id = &*request_id, "a handler panicked; the request got a 500");
                ApiError::internal("The server made a mistake; see its log.").into_response()
            })
        }
        Err(refusal) => {
            frontend.metrics().rejected("unauthorized");
            refusal.into_response()
        }
    };
    record.set_status(response.status());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic())
    };
    given.filter(usable).map_or_else(|| random_id().into(), Arc::from)
}

fn endpoint(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" => "chat_completions",
        "/v1/completions" => "completions",
        "/health" => "health",
        "/live" => "live",
        "/metrics" => "metrics",
        "/version" => "version",
        path if path == "/v1/models" || path.starts_with("/v1/models/") => "models",
        _ => "other",
    }
}

fn authorize(frontend: &Frontend, headers: &HeaderMap) -> Result<(), ApiError> {
    let keys = &frontend.config().api_keys;
    if keys.is_empty() {
        return Ok(());
    }
    let Some(value) = headers.get(AUTHORIZATION) else {
        let message = "An API key is required: send it in the header 'Authorization: Bearer KEY'.";
        return Err(ApiError::unauthorized(message));
    };
    let given = value.as_bytes();
    let key = match given.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
        _ => return Err(ApiError::unauthorized("The header 'Authorization' must be 'Bearer KEY'.")),
    };
    // Every key is compared to its end, so the time taken says nothing about how much of it was right.
    let known =
        keys.iter().fold(false, |known, expected| known | equal_in_constant_time(expected.as_bytes(), key));
    if known { Ok(()) } else { Err(ApiError::unauthorized("This API key is not known here.")) }
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b))) == 0
}
