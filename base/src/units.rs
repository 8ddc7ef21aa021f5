//! Numbers with units, as people write them.

/// A whole number of bytes, alone or with a unit (KiB, MiB, GiB, TiB) right behind it, such as `512MiB`; `None` if the text is
/// something else, or more than 64 bits hold.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match &text[digits..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_and_nothing_else_is_taken() {
        let found = ["0", "512MiB", "1KiB", "3GiB", "2TiB", "18446744073709551615"].map(bytes);
        assert_eq!(found, [0, 512 << 20, 1 << 10, 3 << 30, 2 << 40, u64::MAX].map(Some));
        for text in
            ["", "MiB", "512 MiB", "512MB", "512mib", "-1", "+1", "1.5GiB", "16777216TiB", "18446744073709551616", "1é"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
