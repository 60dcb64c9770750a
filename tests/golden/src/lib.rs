//! Reference outputs, and a rig that runs a model on one engine or on two.

pub mod data;
pub mod rig;
