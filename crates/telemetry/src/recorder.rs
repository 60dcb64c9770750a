//! The Prometheus recorder of this process.

use crate::names::{self, Kind};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use thiserror::Error;

/// The metrics of this process, ready to be scraped.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Why metrics cannot be recorded.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// Some library installed another recorder for the `metrics` crate before: install this one first.
    #[error("another metrics recorder is installed already: {0}")]
    Taken(String),
    /// The thread that keeps histograms small did not start.
    #[error("cannot start the metrics thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Histograms keep raw samples until they are folded into buckets; 5 s of them are a few MB at 100,000 tokens a second.
const FOLD_INTERVAL: Duration = Duration::from_secs(5);

impl Metrics {
    /// Installs the recorder of this process and describes all metrics; later calls give the same recorder.
    ///
    /// # Errors
    /// [`RecorderError`]: nothing would be recorded.
    pub fn install() -> Result<Self, RecorderError> {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(installed) = INSTALLED.get() {
            return Ok(installed.clone());
        }
        let recorder = builder().build_recorder();
        let installed = Self(recorder.handle());
        metrics::set_global_recorder(recorder).map_err(|error| RecorderError::Taken(error.to_string()))?;
        names::describe_all();
        let folding = installed.0.clone();
        std::thread::Builder::new().name("metrics".into()).spawn(move || {
            loop {
                std::thread::sleep(FOLD_INTERVAL);
                folding.run_upkeep();
            }
        })?;
        Ok(INSTALLED.get_or_init(|| installed).clone())
    }

    /// All metrics in the text format of Prometheus, version 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
    pub fn render(&self) -> String {
        self.0.render()
    }
}

fn builder() -> PrometheusBuilder {
    let mut builder = PrometheusBuilder::new();
    for metric in names::ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets.bounds())
                .expect("the bucket lists are not empty");
        }
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineMetrics, FrontendMetrics};
    use std::collections::HashSet;

    #[test]
    fn what_is_recorded_is_scraped_with_help_and_buckets() {
        let metrics = Metrics::install().unwrap();
        Metrics::install().expect("a second call gives the same recorder");
        let frontend = FrontendMetrics::new();
        frontend.time_to_first_token.record(0.02);
        frontend.http_request("completions", 200);
        EngineMetrics::new("decode").kv_blocks_free.set(7.0);
        let text = metrics.render();
        for line in [
            "# TYPE baton_time_to_first_token_seconds histogram",
            "baton_time_to_first_token_seconds_bucket{le=\"0.01\"} 0",
            "baton_time_to_first_token_seconds_bucket{le=\"0.025\"} 1",
            "baton_http_requests_total{endpoint=\"completions\",status=\"200\"} 1",
            "baton_kv_blocks_free{role=\"decode\"} 7",
            "baton_preemptions_total{role=\"decode\"} 0",
            "baton_step_tokens_total{role=\"decode\",phase=\"prefill\"} 0",
            "baton_rejected_total{reason=\"queue_full\"} 0",
            "baton_handoffs_total{outcome=\"failed\"} 0",
            "baton_requests_in_flight 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing from\n{text}");
        }
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in names::ALL {
            assert!(seen.insert(metric.name), "{} is there twice", metric.name);
            assert!(metric.name.starts_with("baton_"), "{}", metric.name);
            match metric.kind {
                Kind::Counter => assert!(metric.name.ends_with("_total"), "{}", metric.name),
                Kind::Histogram(buckets) => {
                    assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
                    assert!(buckets.bounds().is_sorted(), "{}", metric.name);
                }
                Kind::Gauge => {}
            }
        }
    }
}
