//! Seeded random workloads in tiny worlds: every sequence ends exactly once with exactly the tokens that its prompt and
//! seed determine, and no block is lost, whatever arrives, leaves, is preempted, handed over or breaks.

mod world;

use world::{World, WorldConfig};

const SEEDS: u64 = 300;

/// Runs `SEEDS` worlds; each checks itself. Returns how often what we want to have exercised happened.
fn run(config: WorldConfig) -> world::Coverage {
    let mut coverage = world::Coverage::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed, config);
        world.run();
        coverage.add(&world.coverage);
    }
    println!("{config:?}: {coverage:?}");
    coverage
}

#[test]
fn aggregated_with_room() {
    let coverage = run(WorldConfig { num_blocks: 64, ..WorldConfig::default() });
    assert_eq!(coverage.preemptions, 0, "64 blocks are enough for all");
    assert!(coverage.finished > 1000 && coverage.aborted > 100 && coverage.prefix_hit_tokens > 1000);
}

#[test]
fn aggregated_in_a_pool_that_is_too_small() {
    let coverage = run(WorldConfig::default());
    assert!(coverage.preemptions > 200 && coverage.refused > 10, "the world was not tight");
}

#[test]
fn runner_failures_end_only_their_step() {
    let coverage = run(WorldConfig { failures: true, ..WorldConfig::default() });
    assert!(coverage.failed > 100 && coverage.finished > 1000);
}

#[test]
fn disaggregated() {
    let coverage = run(WorldConfig { handoff: true, num_blocks: 24, ..WorldConfig::default() });
    assert!(coverage.handed_over > 1000 && coverage.finished > 1000);
}

#[test]
fn disaggregated_in_small_pools_with_failing_handoffs() {
    let coverage = run(WorldConfig { handoff: true, handoff_faults: true, ..WorldConfig::default() });
    assert!(coverage.handed_over > 500 && coverage.taken_back > 200 && coverage.preemptions > 200);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let config =
            WorldConfig { handoff: true, handoff_faults: true, failures: true, ..WorldConfig::default() };
        let traces = [(); 2].map(|()| {
            let mut world = World::new(seed, config);
            world.run();
            world.trace
        });
        assert!(traces[0].len() > 50);
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
