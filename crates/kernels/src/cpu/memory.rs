//! Large zeroed buffers: page-aligned, backed by memory only where touched, on huge pages where the system has them.

use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Numbers that any bytes make up.
pub(crate) trait Plain: Copy + Send + Sync {}
impl Plain for u8 {}
impl Plain for f32 {}

/// `len` numbers, zero at first.
pub(crate) struct ZeroedBuffer<T: Plain> {
    map: MmapMut,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> ZeroedBuffer<T> {
    /// # Panics
    /// If the system has no memory for it.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).expect("a buffer beyond the address space").max(1);
        let map = MmapMut::map_anon(bytes)
            .unwrap_or_else(|error| panic!("no memory for a buffer of {bytes} bytes: {error}"));
        // Fewer misses of the address cache while streaming weights. Refusal costs speed only.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Self { map, len, element: PhantomData }
    }
}

impl<T: Plain> Deref for ZeroedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the map is page-aligned, holds `len` elements, and any bytes are a valid `T`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for ZeroedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
