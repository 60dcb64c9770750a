//! Fetches one file over HTTP so that a cut, a crash or a second process costs nothing already paid for.
//!
//! What arrived stays in a staging file; the next try asks for the rest by `Range`, guarded by `If-Range` (RFC 9110,
//! sections 13.1.5 and 14.2), so that bytes of two versions are never joined. Failures without a byte in between are
//! counted and waited for ever longer; connecting and every wait for bytes have their limits.

use crate::staging::{Lock, Part, create_parent};
use crate::{HubError, HubOptions, Limits, Progress};
use reqwest::header::{
    CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE, RETRY_AFTER,
};
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, redirect};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// From where.
    pub url: &'a str,
    /// To where. A file that is there already is left alone.
    pub destination: &'a Path,
    /// The lock file that keeps two processes from writing `destination` at once.
    pub lock: PathBuf,
    /// The SHA-256 sum it must have, in hexadecimal.
    pub sha256: Option<&'a str>,
    /// Sent as bearer token to the URL's own host only.
    pub token: Option<&'a str>,
    /// What it is, for people.
    pub label: &'a str,
}

/// Fetches files within limits.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: Client,
    limits: Limits,
}

/// How one try ended that was no error for good.
enum Try {
    Complete,
    Failed { reason: String, unreachable: bool, retry_after: Option<Duration> },
}

/// No server's wish to be left alone is followed longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

impl Downloader {
    /// A downloader that trusts the system's certificates and those of [`HubOptions::ca_bundle`].
    ///
    /// # Errors
    /// [`HubError::Io`] if the bundle cannot be read.
    pub fn new(options: &HubOptions) -> Result<Self, HubError> {
        Ok(Self { client: client(options, redirect::Policy::default())?, limits: options.limits.clone() })
    }

    /// Fetches one file, or the rest of it, or nothing if it is there.
    ///
    /// # Errors
    /// [`HubError`]. After [`HubError::Interrupted`] and [`HubError::DiskFull`] what arrived is kept for the next run.
    pub async fn fetch(&self, wanted: &Download<'_>, progress: &dyn Progress) -> Result<(), HubError> {
        create_parent(wanted.destination)?;
        let _lock = Lock::acquire(&wanted.lock, wanted.destination, self.limits.lock).await?;
        if wanted.destination.exists() {
            return Ok(());
        }
        let destination = wanted.destination.to_owned();
        let mut part = blocking(move || Part::open(&destination)).await?;
        let resumed = part.len() > 0;
        let mut outcome = self.fill(wanted, &mut part, progress).await;
        if resumed && matches!(outcome, Err(HubError::HashMismatch { .. })) {
            // What an earlier run left was bad, or of another version; that is no fault of this answer.
            outcome = self.fill(wanted, &mut part, progress).await;
        }
        match outcome {
            Ok(()) => {
                let destination = wanted.destination.to_owned();
                blocking(move || part.publish(&destination)).await
            }
            Err(error) => {
                if part.len() == 0 {
                    part.discard()?;
                }
                Err(error)
            }
        }
    }

    /// Tries until the file is whole and has the right sum.
    async fn fill(
        &self,
        wanted: &Download<'_>,
        part: &mut Part,
        progress: &dyn Progress,
    ) -> Result<(), HubError> {
        let (mut failures, mut furthest) = (0, part.len());
        loop {
            let outcome = self.attempt(wanted, part, progress).await;
            progress.end();
            let Try::Failed { reason, unreachable, retry_after } = outcome? else {
                return wanted.sha256.map_or(Ok(()), |sum| part.check(wanted.label, sum));
            };
            // Only bytes beyond all earlier ones are progress: a server without ranges that always cuts gives none.
            failures = if part.len() > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(part.len());
            if failures >= self.limits.failures {
                return Err(give_up(wanted, part, reason, unreachable));
            }
            let wait = self.limits.back_off * (1 << (failures - 1).min(5));
            let wait = retry_after.map_or(wait, |asked| asked.clamp(wait, RETRY_AFTER_MAX.max(wait)));
            tracing::debug!(url = wanted.url, %reason, failures, ?wait, "download failed, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        wanted: &Download<'_>,
        part: &mut Part,
        progress: &dyn Progress,
    ) -> Result<Try, HubError> {
        // Without a sum to check in the end, bytes whose version is unknown cannot be built upon.
        if part.len() > 0 && part.validator().is_none() && wanted.sha256.is_none() {
            part.restart(None)?;
        }
        let request = continue_request(authorized(self.client.get(wanted.url), wanted.token), part);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(failed(&error)),
        };
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE && part.len() > 0 {
            if total_of_range(response.headers()) == Some(part.len()) {
                return Ok(Try::Complete);
            }
            part.restart(None)?;
            return Ok(Try::Failed {
                reason: "the file has shrunk".to_owned(),
                unreachable: false,
                retry_after: None,
            });
        }
        if is_passing(status) {
            let retry_after = retry_after(response.headers());
            return Ok(Try::Failed { reason: format!("status {status}"), unreachable: false, retry_after });
        }
        accept(&response, wanted.label)?;
        if status != StatusCode::PARTIAL_CONTENT || start_of_range(response.headers()) != Some(part.len()) {
            if status == StatusCode::PARTIAL_CONTENT {
                return Err(bad_answer(wanted.url, "it sent another range than it was asked for"));
            }
            part.restart(strong_validator(response.headers()))?;
        }
        receive(response, wanted, part, progress).await
    }
}

/// Appends the body to `part`.
async fn receive(
    mut response: Response,
    wanted: &Download<'_>,
    part: &mut Part,
    progress: &dyn Progress,
) -> Result<Try, HubError> {
    let total = response.content_length().map(|rest| part.len() + rest);
    progress.begin(wanted.label, total);
    progress.at(part.len());
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => part.append(&bytes, total)?,
            Ok(None) if total.is_some_and(|total| part.len() < total) => {
                let reason = "the connection closed early".to_owned();
                return Ok(Try::Failed { reason, unreachable: false, retry_after: None });
            }
            Ok(None) => return Ok(Try::Complete),
            Err(error) => return Ok(failed(&error)),
        }
        progress.at(part.len());
    }
}

fn continue_request(request: RequestBuilder, part: &Part) -> RequestBuilder {
    if part.len() == 0 {
        return request;
    }
    let request = request.header(RANGE, format!("bytes={}-", part.len()));
    match part.validator().and_then(|validator| HeaderValue::from_str(validator).ok()) {
        Some(validator) => request.header(IF_RANGE, validator),
        None => request,
    }
}

/// A client within the limits. `policy` says which redirects it follows; a token never follows one to another host.
pub(crate) fn client(options: &HubOptions, policy: redirect::Policy) -> Result<Client, HubError> {
    let mut builder = Client::builder()
        .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.limits.connect)
        .read_timeout(options.limits.idle)
        .redirect(policy);
    if let Some(path) = &options.ca_bundle {
        let pem = std::fs::read(path).map_err(HubError::at(path))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| {
            HubError::io(path, 0, std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        })?;
        builder = certificates.into_iter().fold(builder, |builder, root| builder.add_root_certificate(root));
    }
    builder
        .build()
        .map_err(|error| HubError::Unreachable { host: "the network".to_owned(), reason: chain(&error) })
}

/// The request with a token, if there is one.
pub(crate) fn authorized(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

/// Refuses an answer that is no success, by what the caller can do.
pub(crate) fn accept(response: &Response, what: &str) -> Result<(), HubError> {
    let (what, url, status) = (what.to_owned(), public_url(response), response.status());
    // The hub hides private repositories behind 401 and says what it means in a header.
    let code = response.headers().get(HeaderName::from_static("x-error-code"));
    let missing = code.is_some_and(|code| {
        code.to_str().is_ok_and(|code| code.ends_with("NotFound") && code != "GatedRepo")
    });
    match status {
        _ if status.is_success() || status.is_redirection() => Ok(()),
        StatusCode::NOT_FOUND => Err(HubError::NotFound { what, url }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if missing => Err(HubError::NotFound { what, url }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(HubError::AccessDenied { what }),
        _ => Err(HubError::Refused { url, status: status.as_u16() }),
    }
}

/// An error of the client, as an error of ours.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> HubError {
    HubError::Unreachable { host: host_of(url), reason: chain(error) }
}

/// The error of an answer that cannot be trusted.
pub(crate) fn bad_answer(url: &str, reason: &str) -> HubError {
    HubError::BadAnswer { url: url.to_owned(), reason: reason.to_owned() }
}

fn give_up(wanted: &Download<'_>, part: &Part, reason: String, unreachable: bool) -> HubError {
    if unreachable && part.len() == 0 {
        return HubError::Unreachable { host: host_of(wanted.url), reason };
    }
    HubError::Interrupted { what: wanted.label.to_owned(), reason, received: part.len() }
}

fn failed(error: &reqwest::Error) -> Try {
    Try::Failed { reason: chain(error), unreachable: error.is_connect(), retry_after: None }
}

/// Whether asking again may help.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Weak tags (`W/`) say "means the same", which is not enough to join bytes.
fn strong_validator(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    tag.starts_with('"').then(|| tag.to_owned())
}

/// `bytes FIRST-LAST/TOTAL`
fn start_of_range(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// `bytes */TOTAL`
fn total_of_range(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit('/').next()?.parse().ok()
}

/// The error and what caused it, in one line, without the URL: it may carry a signature.
fn chain(error: &reqwest::Error) -> String {
    let mut parts = vec![match error {
        _ if error.is_timeout() => "timed out".to_owned(),
        _ if error.is_connect() => "no connection".to_owned(),
        _ if error.is_body() || error.is_decode() => "the answer broke off".to_owned(),
        _ => "the request failed".to_owned(),
    }];
    let mut source = error.source();
    while let Some(cause) = source {
        parts.push(cause.to_string());
        source = cause.source();
    }
    parts.dedup();
    parts.join(": ")
}

fn host_of(url: &str) -> String {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| url.to_owned())
}

/// Without its query: it may carry a signature.
fn public_url(response: &Response) -> String {
    let mut url = response.url().clone();
    url.set_query(None);
    url.to_string()
}

/// Runs work that reads or writes much off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
