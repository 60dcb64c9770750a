//! Arithmetic kernels behind safe functions that check shapes. Nothing here knows sequences, models or scheduling.
//!
//! This crate is one of the two places in the workspace where `unsafe` may be used; every block names the promise
//! that makes it sound.
#![allow(
    unsafe_code,
    reason = "SIMD intrinsics, shared output buffers and file mappings; see the SAFETY comments"
)]

pub mod cpu;
