//! What is measured, in the order of the report.

use crate::Args;
use crate::client::{Target, random_prompt};
use crate::report::{head, machine, median, percentile, row};
use crate::server::Server;
use anyhow::Context;
use futures::future::try_join_all;
use std::time::Instant;

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    machine();
    if wants(args, "peer") {
        against_the_peer(args).await?;
    }
    if wants(args, "interference") {
        disaggregated_against_aggregated(args).await?;
    }
    Ok(())
}

fn wants(args: &Args, scenario: &str) -> bool {
    scenario.contains(&args.only)
}

async fn against_the_peer(args: &Args) -> anyhow::Result<()> {
    let baton = || Server::baton(&args.baton, &args.model, args.threads, &args.extra);
    let peer = || Server::peer(&args.peer_python, &args.peer_script, &args.model, args.threads);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.min(3) {
        let server = baton().await?;
        ours.push(server.start_up.as_secs_f64());
        server.stop().await?;
        let server = peer().await?;
        theirs.push(server.start_up.as_secs_f64());
        server.stop().await?;
    }
    let (a, b) = (baton().await?, peer().await?);
    head("Baton", "llama.cpp");
    row("start until ready", "s", &ours, &theirs, "<= 1.5");
    for (name, unit, bar, measure) in SCENARIOS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..=args.rounds {
            let pair = (measure.run(&a.target).await?, measure.run(&b.target).await?);
            // The first round warms both up.
            if round > 0 {
                ours.push(pair.0);
                theirs.push(pair.1);
            }
        }
        row(name, unit, &ours, &theirs, bar);
    }
    a.stop().await?;
    b.stop().await
}

const SCENARIOS: [(&str, &str, &str, Measure); 4] = [
    ("prefill, 512 tokens", "tokens/s", ">= 1.0", Measure::Prefill),
    ("decode, 1 stream of 128", "tokens/s", ">= 0.7", Measure::Decode),
    ("8 streams of 128", "tokens/s", ">= 0.8", Measure::EightStreams),
    ("time to first token, 36 tokens", "s", "<= 1.3", Measure::ShortTtft),
];

/// One number from one server.
#[derive(Clone, Copy)]
enum Measure {
    Prefill,
    Decode,
    EightStreams,
    ShortTtft,
}

impl Measure {
    async fn run(self, target: &Target) -> anyhow::Result<f64> {
        Ok(match self {
            Self::Prefill => {
                let answer = target.complete(&random_prompt(512), 1, |_| {}).await?;
                512.0 / answer.ttft().as_secs_f64()
            }
            Self::Decode => target.complete(&random_prompt(16), 128, |_| {}).await?.decode_rate(),
            Self::EightStreams => {
                let began = Instant::now();
                let prompts: Vec<_> = (0..8).map(|_| random_prompt(16)).collect();
                let answers =
                    try_join_all(prompts.iter().map(|prompt| target.complete(prompt, 128, |_| {}))).await?;
                let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
                tokens as f64 / began.elapsed().as_secs_f64()
            }
            Self::ShortTtft => target.complete(&random_prompt(36), 1, |_| {}).await?.ttft().as_secs_f64(),
        })
    }
}

/// A stream runs; in its middle somebody sends a prompt of 1,800 tokens. How long do its tokens take meanwhile?
async fn disaggregated_against_aggregated(args: &Args) -> anyhow::Result<()> {
    head("disaggregated", "aggregated");
    let (mut itl, mut ttft) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..args.rounds.min(3) {
        for (index, mode) in ["disaggregated", "aggregated"].into_iter().enumerate() {
            let options = [&args.extra[..], &[format!("--mode={mode}")]].concat();
            let server = Server::baton(&args.baton, &args.model, args.threads, &options).await?;
            let (p99, first) = interference(&server.target).await?;
            itl[index].push(p99);
            ttft[index].push(first);
            server.stop().await?;
        }
    }
    row("ITL p99 of a stream during an 1,800-token prefill", "s", &itl[0], &itl[1], "<= 0.5");
    row("that prompt's time to first token", "s", &ttft[0], &ttft[1], "-");
    println!("\nITL p99: {:.1}x better disaggregated (bar: 2x)", median(&itl[1]) / median(&itl[0]));
    Ok(())
}

async fn interference(target: &Target) -> anyhow::Result<(f64, f64)> {
    target.complete(&random_prompt(600), 4, |_| {}).await.context("warm-up")?;
    let (start, started) = tokio::sync::oneshot::channel();
    let mut start = Some(start);
    let (prompt, long) = (random_prompt(16), random_prompt(1800));
    let running = target.complete(&prompt, 400, |token| {
        if token == 20
            && let Some(start) = start.take()
        {
            let _ = start.send(()); // the other side waits for exactly this
        }
    });
    let disturbing = async {
        started.await.context("the running stream ended too early")?;
        target.complete(&long, 2, |_| {}).await
    };
    let (running, disturbing) = tokio::try_join!(running, disturbing)?;
    let (from, to) = (disturbing.sent, disturbing.arrivals[0]);
    let gaps: Vec<f64> = running
        .arrivals
        .windows(2)
        .filter(|pair| pair[1] >= from && pair[0] <= to)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    anyhow::ensure!(!gaps.is_empty(), "the running stream was over before the long prompt came");
    Ok((percentile(&gaps, 99.0), disturbing.ttft().as_secs_f64()))
}
