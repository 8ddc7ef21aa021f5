#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_core::catalog::Catalog::from_bytes(bytes);
});
