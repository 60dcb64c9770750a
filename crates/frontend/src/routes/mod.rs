//! The paths of the API.

mod generate;
mod probes;
mod track;

use crate::Frontend;
use crate::openai::ApiError;
use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

/// All routes of a frontend:
///
/// | route | what |
/// |---|---|
/// | `POST /v1/chat/completions`, `POST /v1/completions` | generate |
/// | `GET /v1/models`, `GET /v1/models/{id}` | what is served |
/// | `GET /health` | 200 if new requests would be served, otherwise 503 and why not |
/// | `GET /live` | 200 if the process works, otherwise 503 and why not: start it anew |
/// | `GET /metrics` | Prometheus text |
/// | `GET /version` | the version |
///
/// A request's `Content-Type` is not looked at: every body is JSON.
pub fn router(frontend: Frontend) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completion))
        .route("/v1/models", get(probes::models))
        .route("/v1/models/{*id}", get(probes::model))
        .route("/health", get(probes::health))
        .route("/live", get(probes::live))
        .route("/metrics", get(probes::metrics))
        .route("/version", get(probes::version))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(frontend.clone(), track::track))
        .with_state(frontend)
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(method.as_str(), uri.path())
}
