//! Reading a request's body within its limits of size and time.

use crate::openai::ApiError;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use std::time::Duration;

/// A client that sends too much is listened to for this much longer: many read no response before they have sent
/// everything, and would see a broken connection in place of the reason.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// The whole body.
///
/// # Errors
/// 413 beyond `bytes_max`, 408 if it takes longer than `timeout`, 400 if it breaks off.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > bytes_max) && headers.contains_key(EXPECT) {
        return Err(ApiError::body_too_large(bytes_max));
    }
    // Memory is taken as bytes arrive: an announcement alone costs nothing.
    let reading = read(body, bytes_max, announced.unwrap_or(0).min(64 << 10));
    tokio::time::timeout(timeout, reading)
        .await
        .unwrap_or_else(|_| Err(ApiError::body_timeout(timeout.as_secs())))
}

async fn read(body: Body, bytes_max: usize, capacity: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut discarded) = (BytesMut::with_capacity(capacity), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::malformed("The request's body broke off."))?;
        if discarded == 0 && bytes.len() + chunk.len() <= bytes_max {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        bytes = BytesMut::new();
        discarded += chunk.len();
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if discarded > 0 { Err(ApiError::body_too_large(bytes_max)) } else { Ok(bytes.freeze()) }
}
