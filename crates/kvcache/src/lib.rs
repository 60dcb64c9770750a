//! Which KV block belongs to whom: a pool of fixed-size blocks, owned by guards that give them back, shared by hash.
//!
//! A block's life is a chain of types:
//!
//! ```text
//! free ── allocate ──> MutableBlock ── register(hash) ──> SharedBlock ── last hold dropped  ──> inactive
//!  ^                        │ drop                             ^                                    │
//!  ├────────────────────────┘                                  └────────── match_prefix ────────────┤
//!  └───────────────────────────────────── evict (least recently used) ──────────────────────────────┘
//! ```
//!
//! At every moment `free + inactive + held = total`; [`BlockPool::check`] asserts it against the pool's own lists.
//! The pool knows ids and hashes only: no memory, no device, no scheduling.

mod pool;
mod table;

pub use pool::{BlockCounts, BlockPool, MutableBlock, PoolFull, SharedBlock};
pub use table::BlockTable;
