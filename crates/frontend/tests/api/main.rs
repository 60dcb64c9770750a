//! The API over real sockets, with a scripted backend in place of the engines.

mod common;
mod disconnects;
mod errors;
mod limits;
mod responses;
mod streams;
