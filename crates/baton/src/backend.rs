//! The decode worker, as the frontend wants to see it.

use baton_frontend::{Backend, Health, TokenStream};
use baton_types::{AdmitError, GenerateRequest};
use baton_worker::{Cancel, DecodeWorker, WorkerHealth};
use std::sync::{Arc, OnceLock};

/// Passes requests of the frontend to the decode worker of this process.
pub(crate) struct LocalBackend {
    pub(crate) decode: Arc<DecodeWorker>,
    /// Whether the prefill worker works; without one, prompts are prefilled by the decode worker.
    pub(crate) prefill: Option<Arc<WorkerHealth>>,
}

impl Backend for LocalBackend {
    fn generate(&self, request: GenerateRequest) -> Result<TokenStream, AdmitError> {
        let cancel: Arc<OnceLock<Cancel>> = Arc::default();
        let on_drop = {
            let cancel = cancel.clone();
            move || {
                if let Some(cancel) = cancel.get() {
                    cancel.cancel();
                }
            }
        };
        // Every token that can still come, prompt log-probabilities, and the end: sending never finds it full.
        let capacity = request.sampling.max_tokens as usize + 4;
        let (sink, stream) = TokenStream::channel(capacity, on_drop);
        let handle = self.decode.submit(request, Box::new(move |event| sink.send(event).is_ok()))?;
        let _ = cancel.set(handle); // first and only time
        Ok(stream)
    }

    fn health(&self) -> Health {
        let prefill = self.prefill.as_ref().map_or(Ok(()), |health| health.live());
        Health { ready: self.decode.ready(), live: self.decode.health().live().and(prefill) }
    }
}
