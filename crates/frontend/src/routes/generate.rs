//! The routes that generate.

use crate::Frontend;
use crate::body::read_body;
use crate::generation::Generation;
use crate::openai::{ApiError, ResponseWriter, Shape};
use crate::plan::{Plan, plan};
use crate::record::Record;
use crate::sse::{DEADLINE_GRACE, stream_response};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use std::future::poll_fn;
use std::sync::Arc;

pub(super) async fn chat(State(frontend): State<Frontend>, request: Request) -> Response {
    generate(&frontend, Shape::Chat, request).await
}

pub(super) async fn completion(State(frontend): State<Frontend>, request: Request) -> Response {
    generate(&frontend, Shape::Completion, request).await
}

async fn generate(frontend: &Frontend, shape: Shape, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(record) = parts.extensions.get::<Arc<Record>>().cloned() else {
        return ApiError::internal("The request has no record.").into_response();
    };
    let result = try_generate(frontend, shape, &parts.headers, body, &record).await;
    result.unwrap_or_else(|error| {
        record.set_failure(error.status);
        error.into_response()
    })
}

/// If the client leaves, this future or the body of its response is dropped, and with it every token stream.
async fn try_generate(
    frontend: &Frontend,
    shape: Shape,
    headers: &axum::http::HeaderMap,
    body: Body,
    record: &Arc<Record>,
) -> Result<Response, ApiError> {
    let place = frontend.admit()?;
    record.set_in_flight();
    let config = frontend.config();
    let body = read_body(headers, body, config.body_bytes_max, config.body_timeout).await?;
    let plan = plan(frontend, shape, body).await?;
    record.set_model(&plan.model);
    let generation = Generation::start(frontend, &plan, record)?;
    let writer = writer(frontend, &plan);
    if plan.stream.is_some() {
        return Ok(stream_response(frontend, generation, writer, Arc::clone(record), place));
    }
    whole_response(frontend, generation, &writer, record).await
}

fn writer(frontend: &Frontend, plan: &Plan) -> ResponseWriter {
    let config = frontend.config();
    let (tokenizer, top_logprobs) = (frontend.tokenizer(), plan.sampling.logprobs);
    ResponseWriter::new(
        plan.shape,
        &plan.model,
        &config.system_fingerprint,
        tokenizer,
        top_logprobs,
        plan.stream,
    )
}

async fn whole_response(
    frontend: &Frontend,
    mut generation: Generation,
    writer: &ResponseWriter,
    record: &Record,
) -> Result<Response, ApiError> {
    let timeout = frontend.config().request_timeout;
    let deadline = record.started() + timeout + DEADLINE_GRACE;
    while !generation.is_over() {
        let progress = poll_fn(|context| generation.poll_progress(context));
        let timed = tokio::time::timeout_at(deadline.into(), progress).await;
        timed.unwrap_or_else(|_| Err(ApiError::deadline(timeout.as_secs())))?;
    }
    if let Some((_, ending)) = generation.finished().next() {
        record.set_outcome(ending.name());
    }
    let mut body = BytesMut::with_capacity(1024);
    writer.push_whole(&mut body, generation.finished(), generation.usage());
    let mut response = Response::new(Body::from(body.freeze()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
