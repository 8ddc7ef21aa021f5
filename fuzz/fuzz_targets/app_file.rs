#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = gristmill_core::appfile::AppFile::parse(text, "fuzz");
});
