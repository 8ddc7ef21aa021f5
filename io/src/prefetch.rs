//! Telling the processor which memory will be needed soon. It then loads many lines at a time while the program goes on,
//! where reading them would make it wait for one after the other. Never changes what a program computes.

#![allow(unsafe_code, reason = "the prefetch instruction takes an address")]

/// Bytes that a processor's cache loads together.
pub const LINE_BYTES: usize = 64;

/// Asks for the line in which a place begins.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees and never faults, whatever the address is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks for the first `lines` lines of some bytes, as far as there are any.
#[inline(always)]
pub fn prefetch_bytes(bytes: &[u8], lines: usize) {
    bytes.iter().step_by(LINE_BYTES).take(lines).for_each(prefetch);
    if let Some(last) = bytes.last()
        && bytes.len() <= lines * LINE_BYTES
    {
        // Bytes that do not begin with a line end in one more.
        prefetch(last);
    }
}
