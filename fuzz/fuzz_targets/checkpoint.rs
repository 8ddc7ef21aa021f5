#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = gristmill_core::shard::unseal_checkpoint(0, gristmill_base::ids::SlotId(0), 1, bytes);
});
