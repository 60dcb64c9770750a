//! How much memory the KV caches get when nobody says.

use std::path::Path;

/// Most bytes of one engine's KV cache by default. With 46 kB a token (SmolLM2-135M in f32) 4 GiB hold 90,000 tokens.
const KV_BYTES_MAX: u64 = 4 << 30;

/// Share of the free memory that one engine's KV cache gets by default: two engines, and as much again for the weights.
const KV_SHARE_OF_FREE: u64 = 4;

/// KV blocks for one engine: what fits a quarter of the free memory, at most 4 GiB, and at least one sequence of the
/// greatest length. Memory is only used when blocks are.
pub(crate) fn default_kv_blocks(bytes_per_block: usize, blocks_per_sequence: usize) -> usize {
    let bytes = (free_bytes() / KV_SHARE_OF_FREE).min(KV_BYTES_MAX);
    let blocks = usize::try_from(bytes).unwrap_or(usize::MAX) / bytes_per_block.max(1);
    blocks.max(blocks_per_sequence)
}

/// Memory that this process may still take: the machine's, or its control group's if that is less. Where neither can be
/// told, 2 GiB.
fn free_bytes() -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| meminfo_available(&text));
    let number = |path: &str| read(Path::new(path))?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(limit, used)| limit.saturating_sub(used));
    machine.into_iter().chain(group).min().unwrap_or(2 << 30)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kibibytes() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(meminfo_available(text), Some(1024 * 1024));
        assert_eq!(meminfo_available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn one_sequence_always_fits() {
        assert_eq!(default_kv_blocks(usize::MAX, 128), 128);
        assert!(default_kv_blocks(1 << 20, 1) <= 4096);
    }
}
