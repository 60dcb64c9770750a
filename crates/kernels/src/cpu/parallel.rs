//! One parallel region a kernel, on the current rayon pool.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `task(0)` to `task(tasks - 1)`, each once, on the current pool's threads. The caller works too, and takes what
/// a helper that wakes late does not.
pub(crate) fn for_each_task(tasks: usize, task: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(tasks);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    };
    if threads <= 1 {
        work();
        return;
    }
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// `0..len` in `parts` runs of nearly equal length; the run of `part`.
pub(crate) fn part_range(len: usize, parts: usize, part: usize) -> Range<usize> {
    len * part / parts..len * (part + 1) / parts
}

/// A pointer that tasks share, each writing elements that no other task touches.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<T>(*mut T);

// SAFETY: a plain address; whoever writes through it promises to be alone with the elements it writes.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    pub(crate) fn pointer(self) -> *mut T {
        self.0
    }

    /// The elements `range`.
    ///
    /// # Safety
    /// They lie in the slice that this was made from, which outlives `'a`, and nobody else touches them during `'a`.
    pub(crate) unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}
