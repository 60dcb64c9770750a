//! Taking messages in, once a turn.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Everything that lies in `inbox`; when nothing does and `patience` is given, waits that long for a first message.
/// `None`: nobody can send any more.
pub(crate) fn take<T>(inbox: &Receiver<T>, patience: Option<Duration>) -> Option<Vec<T>> {
    let mut messages = Vec::new();
    if let Some(patience) = patience {
        match inbox.recv_timeout(patience) {
            Ok(message) => messages.push(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    messages.extend(inbox.try_iter());
    Some(messages)
}
