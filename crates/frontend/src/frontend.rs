//! The state that all requests share.

use crate::backend::Backend;
use crate::clock::unix_secs;
use crate::config::FrontendConfig;
use crate::openai::ApiError;
use baton_telemetry::{FrontendMetrics, Metrics};
use baton_tokenizer::Tokenizer;
use baton_types::AdmitError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A frontend: one model's tokenizer, the engines behind it, and the limits at the door. Cheap to clone.
#[derive(Clone)]
pub struct Frontend {
    shared: Arc<Shared>,
}

struct Shared {
    config: FrontendConfig,
    tokenizer: Tokenizer,
    backend: Arc<dyn Backend>,
    metrics: FrontendMetrics,
    scrape: Metrics,
    places: Arc<Semaphore>,
    planning: Arc<Semaphore>,
    draining: AtomicBool,
    started_unix_secs: u64,
}

impl Frontend {
    /// A frontend of one model.
    pub fn new(
        config: FrontendConfig,
        tokenizer: Tokenizer,
        backend: Arc<dyn Backend>,
        metrics: Metrics,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared {
            places: Arc::new(Semaphore::new(config.requests_max)),
            planning: Arc::new(Semaphore::new(cores)),
            config,
            tokenizer,
            backend,
            metrics: FrontendMetrics::new(),
            scrape: metrics,
            draining: AtomicBool::new(false),
            started_unix_secs: unix_secs(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on the server is not ready, and new requests are refused with 503; those under way go on. To be called
    /// when the process is asked to stop, before [`serve`](crate::serve) is.
    pub fn begin_drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn config(&self) -> &FrontendConfig {
        &self.shared.config
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.shared.backend
    }

    pub(crate) fn metrics(&self) -> &FrontendMetrics {
        &self.shared.metrics
    }

    pub(crate) fn scrape(&self) -> &Metrics {
        &self.shared.scrape
    }

    pub(crate) fn started_unix_secs(&self) -> u64 {
        self.shared.started_unix_secs
    }

    /// A place for one request, from before its body is read until its response is over.
    ///
    /// # Errors
    /// All places are taken, or the server is draining.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.is_draining() {
            self.metrics().rejected("shutting_down");
            return Err(ApiError::unavailable("The server is shutting down."));
        }
        Arc::clone(&self.shared.places).try_acquire_owned().map_err(|_| {
            self.metrics().rejected("overloaded");
            ApiError::overloaded(self.config().requests_max)
        })
    }

    /// Waits for the right to parse and tokenise. Those who wait have a place, so their number is bounded.
    pub(crate) async fn planning_permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.shared.planning).acquire_owned().await.expect("this semaphore is never closed")
    }

    /// Counts a refusal by the engines.
    pub(crate) fn count_refusal(&self, error: &AdmitError) {
        match error {
            AdmitError::QueueFull { .. } => self.metrics().rejected("queue_full"),
            AdmitError::ShuttingDown => self.metrics().rejected("shutting_down"),
            AdmitError::EngineDown(_) => self.metrics().rejected("engine_down"),
            AdmitError::PromptTooLong { .. } | AdmitError::PromptEmpty => {}
        }
    }
}
