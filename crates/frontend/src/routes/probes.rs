//! The routes that only tell.

use crate::Frontend;
use crate::openai::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(super) async fn health(State(frontend): State<Frontend>) -> Response {
    if frontend.is_draining() {
        return probe(Err("the server is shutting down".into()));
    }
    probe(frontend.backend().health().ready)
}

pub(super) async fn live(State(frontend): State<Frontend>) -> Response {
    probe(frontend.backend().health().live)
}

pub(super) async fn metrics(State(frontend): State<Frontend>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], frontend.scrape().render()).into_response()
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub(super) async fn models(State(frontend): State<Frontend>) -> Json<Value> {
    let models: Vec<Value> =
        frontend.config().served_model_names.iter().map(|name| describe(&frontend, name)).collect();
    Json(json!({"object": "list", "data": models}))
}

pub(super) async fn model(State(frontend): State<Frontend>, Path(id): Path<String>) -> Response {
    let names = &frontend.config().served_model_names;
    match names.iter().find(|name| **name == id) {
        Some(name) => Json(describe(&frontend, name)).into_response(),
        None => ApiError::model_not_found(&id, &names.join("', '")).into_response(),
    }
}

fn describe(frontend: &Frontend, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": frontend.started_unix_secs(),
        "owned_by": "baton",
        "max_model_len": frontend.config().max_model_len,
    })
}

fn probe(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => Json(json!({"status": "ok"})).into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unavailable", "reason": reason})))
                .into_response()
        }
    }
}
