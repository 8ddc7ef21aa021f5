#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_core::boot::Placement::from_bytes(bytes);
});
