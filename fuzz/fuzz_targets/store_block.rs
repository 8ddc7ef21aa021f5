#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_state::store::check_block(bytes);
    let _ = gristmill_state::store::RowKey::decode(bytes);
});
