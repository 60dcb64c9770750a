//! Steps with a name, a time limit and a place in the table at the end.

use anyhow::{Context, bail};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stdin};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// One thing to check.
pub(crate) struct Step {
    name: &'static str,
    after: &'static [&'static str],
    work: Work,
}

enum Work {
    Function(fn(&Path) -> anyhow::Result<()>),
    Command {
        program: OsString,
        arguments: Vec<String>,
        environment: Vec<(String, OsString)>,
        limit: Duration,
    },
}

impl Step {
    /// A program with its arguments, run in the repository's root.
    pub(crate) fn command(
        name: &'static str,
        limit_minutes: u64,
        program: impl AsRef<OsStr>,
        arguments: &[&str],
    ) -> Self {
        let program = program.as_ref().to_owned();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let limit = Duration::from_secs(limit_minutes * 60);
        Self { name, after: &[], work: Work::Command { program, arguments, environment: Vec::new(), limit } }
    }

    /// Work of ours; it limits the time of what it runs itself.
    pub(crate) fn function(name: &'static str, function: fn(&Path) -> anyhow::Result<()>) -> Self {
        Self { name, after: &[], work: Work::Function(function) }
    }

    /// Variables for the program.
    pub(crate) fn environment(mut self, variables: &[(String, OsString)]) -> Self {
        if let Work::Command { environment, .. } = &mut self.work {
            environment.extend_from_slice(variables);
        }
        self
    }

    /// Steps without whose success this one has no point.
    pub(crate) fn after(mut self, steps: &'static [&'static str]) -> Self {
        self.after = steps;
        self
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, root: &Path) -> anyhow::Result<()> {
        match &self.work {
            Work::Function(function) => function(root),
            Work::Command { program, arguments, environment, limit } => {
                let mut command = Command::new(program);
                command.args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
                run(command.current_dir(root), *limit)
            }
        }
    }
}

/// What became of the steps so far.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped,
}

impl Summary {
    /// Runs a step unless one it needs has failed; says so before and after.
    pub(crate) fn run(&mut self, step: Step, root: &Path) {
        let is_bad = |row: &&Row| row.outcome != Outcome::Passed && step.after.contains(&row.name);
        if let Some(bad) = self.rows.iter().find(is_bad) {
            println!("=== {}: skipped, {} did not pass", step.name, bad.name);
            self.rows.push(Row { name: step.name, outcome: Outcome::Skipped, took: Duration::ZERO });
            return;
        }
        println!("=== {}", step.name);
        let started = Instant::now();
        let outcome = match step.run(root) {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let took = started.elapsed();
        match &outcome {
            Outcome::Failed(why) => {
                println!("=== {}: FAILED after {:.1} s: {why}", step.name, took.as_secs_f32())
            }
            _ => println!("=== {}: passed in {:.1} s", step.name, took.as_secs_f32()),
        }
        self.rows.push(Row { name: step.name, outcome, took });
    }

    /// Prints the table and the closing line.
    pub(crate) fn report(self) -> ExitCode {
        println!();
        for row in &self.rows {
            let outcome = match &row.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed(_) => "FAILED",
                Outcome::Skipped => "skipped",
            };
            println!("{:>10}  {outcome:<8} {:>8.1} s", row.name, row.took.as_secs_f32());
        }
        let count =
            |wanted: fn(&Outcome) -> bool| self.rows.iter().filter(|row| wanted(&row.outcome)).count();
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = count(|outcome| *outcome == Outcome::Skipped);
        let total: Duration = self.rows.iter().map(|row| row.took).sum();
        println!("{:>10}  {:<8} {:>8.1} s", "total", "", total.as_secs_f32());
        println!("steps: {} passed, {failed} failed, {skipped} skipped", self.rows.len() - failed - skipped);
        if failed + skipped == 0 && !self.rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a command to its end, or ends it when its time is up.
///
/// # Errors
/// If it cannot start, fails, or takes too long.
pub(crate) fn run(command: &mut Command, limit: Duration) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = wait(spawn(command)?, limit).with_context(|| name.clone())?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// Runs a command like [`run`] and gives its status and what it printed, both streams.
///
/// # Errors
/// If it cannot start or takes too long.
pub(crate) fn output(command: &mut Command, limit: Duration) -> anyhow::Result<(ExitStatus, String)> {
    let path = std::env::temp_dir().join(format!("xtask-{}.log", std::process::id()));
    let log = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    command.stdout(log.try_clone()?).stderr(log);
    let status = wait(spawn(command)?, limit);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::remove_file(&path)?;
    Ok((status?, text))
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    if !shares_terminal() {
        command.process_group(0);
    }
    command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))
}

fn wait(mut child: Child, limit: Duration) -> anyhow::Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() >= limit {
            end(&mut child);
            bail!("still running after {} s; ended", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// At a terminal, Ctrl-C must reach the children, so they stay in our process group; elsewhere they get one of their
/// own, and can be ended with all their children.
fn shares_terminal() -> bool {
    stdin().is_terminal()
}

fn end(child: &mut Child) {
    if !shares_terminal() {
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_its_children() {
        let started = Instant::now();
        let error = run(Command::new("sh").args(["-c", "sleep 60 & wait"]), Duration::from_millis(200));
        assert!(error.expect_err("too long").to_string().contains("sh"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_step_is_skipped_when_one_it_needs_failed() {
        let mut summary = Summary::default();
        summary.run(Step::function("first", |_| bail!("broken")), Path::new("."));
        summary.run(Step::function("second", |_| Ok(())).after(&["first"]), Path::new("."));
        summary.run(Step::command("third", 1, "sh", &["-c", "exit 3"]), Path::new("."));
        summary.run(Step::command("fourth", 1, "true", &[]), Path::new("."));
        let passed: Vec<_> = summary.rows.iter().map(|row| row.outcome == Outcome::Passed).collect();
        assert_eq!(passed, [false, false, false, true]);
        assert!(summary.rows[1].outcome == Outcome::Skipped);
    }
}
