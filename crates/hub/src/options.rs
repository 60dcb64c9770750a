//! Where models are kept, where they come from, and how long anything may take.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Places, credentials and limits, all decided by the caller.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Where the demo model is kept; by default `baton/models` in the user's cache directory.
    pub model_cache: PathBuf,
    /// The cache that programs for this hub share; by default `huggingface/hub` in the user's cache directory.
    pub hub_cache: PathBuf,
    /// Base URL of the hub; `None` for the public one.
    pub endpoint: Option<String>,
    /// The hub's access token; `None`: the one in the token file beside `hub_cache`, if there is one.
    pub token: Option<String>,
    /// Use what is cached and fetch nothing.
    pub offline: bool,
    /// PEM certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Python interpreters to ask for the demo model, in this order.
    pub python: Vec<String>,
    /// How long anything may take.
    pub limits: Limits,
}

/// Bounds on waits and retries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// To open a connection, name look-up and TLS included.
    pub connect: Duration,
    /// To learn whether the hub is there before the demo model is fetched another way. Short, for offline machines.
    pub probe: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// Failures in a row, with no byte received in between, before a download is given up.
    pub failures: u32,
    /// The wait after the first failure; doubles each time, up to 32 times as much.
    pub back_off: Duration,
    /// For another process that writes the same file.
    pub lock: Duration,
    /// For pip to find the package. Long: where the index serves no metadata, pip fetches the package itself.
    pub pip: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            probe: Duration::from_secs(3),
            idle: Duration::from_secs(30),
            failures: 5,
            back_off: Duration::from_millis(500),
            lock: Duration::from_secs(3600),
            pip: Duration::from_secs(300),
        }
    }
}

impl HubOptions {
    /// Options from the variables that other programs for the hub and for pip read too: `HF_HOME`, `HF_HUB_CACHE`,
    /// `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`; `XDG_CACHE_HOME`, `HOME`; and the first of `SSL_CERT_FILE`,
    /// `REQUESTS_CA_BUNDLE`, `PIP_CERT` for certificates. `env` gives a variable's value; empty counts as unset.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| env(name).filter(|value| !value.is_empty());
        let home = get("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let cache = get("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        let hf_home = get("HF_HOME").map_or_else(|| cache.join("huggingface"), PathBuf::from);
        Self {
            model_cache: cache.join("baton").join("models"),
            hub_cache: get("HF_HUB_CACHE").map_or_else(|| hf_home.join("hub"), PathBuf::from),
            endpoint: get("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            token: get("HF_TOKEN"),
            offline: get("HF_HUB_OFFLINE").is_some_and(|value| {
                matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
            }),
            ca_bundle: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"]
                .into_iter()
                .find_map(get)
                .map(PathBuf::from),
            python: vec!["python3".to_owned(), "python".to_owned()],
            limits: Limits::default(),
        }
    }

    /// Options that keep everything below one directory, with no token and the public hub.
    pub fn below(directory: &Path) -> Self {
        let directory = directory.display().to_string();
        Self::from_env(|name| (name == "XDG_CACHE_HOME").then(|| directory.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_env(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn places_follow_the_usual_variables() {
        let plain = options(&[("HOME", "/h")]);
        assert_eq!(plain.model_cache, Path::new("/h/.cache/baton/models"));
        assert_eq!(plain.hub_cache, Path::new("/h/.cache/huggingface/hub"));
        assert!(!plain.offline && plain.token.is_none() && plain.endpoint.is_none());

        let set = options(&[
            ("HOME", "/h"),
            ("XDG_CACHE_HOME", "/c"),
            ("HF_HOME", "/hf"),
            ("HF_TOKEN", ""),
            ("HF_ENDPOINT", "http://localhost:1/"),
            ("HF_HUB_OFFLINE", "1"),
            ("PIP_CERT", "/pip.pem"),
        ]);
        assert_eq!(set.model_cache, Path::new("/c/baton/models"));
        assert_eq!(set.hub_cache, Path::new("/hf/hub"));
        assert_eq!(set.endpoint.as_deref(), Some("http://localhost:1"));
        assert_eq!(set.token, None, "an empty variable is no token");
        assert!(set.offline);
        assert_eq!(set.ca_bundle.as_deref(), Some(Path::new("/pip.pem")));
    }
}
