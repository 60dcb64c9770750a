//! Starts and stops the servers that are measured.

use crate::client::{MODEL, Target};
use anyhow::{Context, bail};
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest that a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a starting server is asked: the resolution of start-up times.
const POLL: Duration = Duration::from_millis(10);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) target: Target,
    /// From its start until it said that it is ready.
    pub(crate) start_up: Duration,
    child: Child,
}

impl Server {
    pub(crate) async fn baton(
        program: &Path,
        model: &Path,
        threads: usize,
        options: &[String],
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["serve", "--log", "warn", "--served-model-name", MODEL, "--model"]).arg(model);
        command.args(["--port", &port.to_string(), "--threads", &threads.to_string()]).args(options);
        Self::start(command, port, Value::Null).await
    }

    pub(crate) async fn peer(
        python: &Path,
        script: &Path,
        model: &Path,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(python);
        command.arg(script).arg(model).args([port.to_string(), "8".into(), threads.to_string()]);
        Self::start(command, port, serde_json::json!({"cache_prompt": false})).await
    }

    async fn start(mut command: Command, port: u16, extra: Value) -> anyhow::Result<Self> {
        let target = Target::new(format!("http://127.0.0.1:{port}"), extra)?;
        let began = Instant::now();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        while !target.is_ready().await {
            if let Some(status) = child.try_wait()? {
                bail!("{command:?} ended at its start: {status}");
            }
            if began.elapsed() > START_TIMEOUT {
                bail!("{command:?} was not ready after {} s", START_TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Self { target, start_up: began.elapsed(), child })
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the server cannot be stopped")
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
