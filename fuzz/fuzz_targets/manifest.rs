#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_state::store::Manifest::from_bytes(bytes);
});
