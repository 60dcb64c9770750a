//! The API over real sockets, with a scripted backend in place of the engines.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's tasks and channels end with the test, which bounds its waits"
)]

mod common;
mod disconnects;
mod errors;
mod limits;
mod responses;
mod streams;
