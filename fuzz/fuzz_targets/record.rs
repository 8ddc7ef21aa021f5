#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first() else { return };
    let _ = gristmill_state::record::Record::decode(*kind, body);
});
