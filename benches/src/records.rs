//! The records that stores are measured with: the same for every store.

use crate::Numbers;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value where nothing else is said.
pub const VALUE_BYTES: usize = 100;

/// The key of a number: `key:` and twelve digits.
#[must_use]
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Fills the value of a key: its number, as far as there is room for that, then what no compression makes smaller.
pub fn fill_value(value: &mut [u8], number: u64, numbers: &mut Numbers) {
    for (at, chunk) in value.chunks_mut(8).enumerate() {
        let word = if at == 0 { number } else { numbers.draw() };
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

/// Whether a value is one of that key.
#[must_use]
pub fn is_value_of(value: &[u8], number: u64) -> bool {
    let known = value.len().min(8);
    known > 0 && value[..known] == number.to_le_bytes()[..known]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_number_and_values_their_key() {
        assert_eq!(&key(1_234), b"key:000000001234");
        let (mut value, mut numbers) = ([0; 100], Numbers(1));
        fill_value(&mut value, 77, &mut numbers);
        assert!(is_value_of(&value, 77) && !is_value_of(&value, 78) && !is_value_of(&[], 0));
        let mut short = [0; 3];
        fill_value(&mut short, 77, &mut numbers);
        assert!(is_value_of(&short, 77));
    }
}
