#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_state::slot::Slot::load(gristmill_base::ids::SlotId(0), bytes, 0);
});
