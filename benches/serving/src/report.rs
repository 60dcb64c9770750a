//! Medians, percentiles, and the table.

/// Of values of one kind, the middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// Nearest-rank percentile.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// One comparison: our median, theirs, the ratio of the two, and what it shall be.
pub(crate) fn row(name: &str, unit: &str, ours: &[f64], theirs: &[f64], bar: &str) {
    let (a, b) = (median(ours), median(theirs));
    let spread = |values: &[f64]| format!("{:.4}-{:.4}", percentile(values, 0.0), percentile(values, 100.0));
    println!(
        "| {name} | {a:.4} ({}) | {b:.4} ({}) | {unit} | **{:.2}** | {bar} |",
        spread(ours),
        spread(theirs),
        a / b
    );
}

/// The table's head.
pub(crate) fn head(ours: &str, theirs: &str) {
    println!(
        "\n| what | {ours} (range) | {theirs} (range) | unit | ratio | bar |\n| --- | --- | --- | --- | --- | --- |"
    );
}

/// The machine, in a line.
pub(crate) fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or("?").trim().to_owned()
    };
    let has = |flag: &str| field("flags").split(' ').any(|have| have == flag);
    let flags: Vec<_> =
        ["avx2", "avx512f", "avx512_vnni", "amx_int8"].into_iter().filter(|flag| has(flag)).collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "machine: {} ({}), {cores} cores; load average {}",
        field("model name"),
        flags.join(" "),
        read("/proc/loadavg").trim()
    );
}
