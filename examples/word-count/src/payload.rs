//! Payloads of the messages between the app's grains: numbers of seven bits a byte, words with their length before them.

use gristmill_sdk::Failure;

/// Appends a number: seven bits a byte, lowest first, the high bit set on all but the last.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a word and how often it stands.
pub(crate) fn put_count(out: &mut Vec<u8>, word: &[u8], count: u64) {
    put_number(out, word.len() as u64);
    out.extend_from_slice(word);
    put_number(out, count);
}

/// Takes a number from the front.
pub(crate) fn take_number(from: &mut &[u8]) -> Result<u64, Failure> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().ok_or_else(|| Failure::new("the payload ends inside a number"))?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Failure::new("the payload has a number of more than 64 bits"))
}

/// Takes a word and its count from the front; `None` at the end.
pub(crate) fn take_count<'a>(from: &mut &'a [u8]) -> Result<Option<(&'a [u8], u64)>, Failure> {
    if from.is_empty() {
        return Ok(None);
    }
    let length = take_number(from)?;
    let Some((word, rest)) = usize::try_from(length).ok().and_then(|length| from.split_at_checked(length)) else {
        return Err(Failure::new(format!(
            "the payload has a word of {length} bytes, but only {} are left",
            from.len()
        )));
    };
    if word.is_empty() || !word.iter().all(u8::is_ascii_lowercase) {
        return Err(Failure::new("the payload has a word that is not of the letters a to z"));
    }
    *from = rest;
    Ok(Some((word, take_number(from)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_bad_ones_fail() {
        for number in [0, 1, 127, 128, 300, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(take_number(&mut bytes.as_slice()).unwrap(), number);
        }
        assert!(take_number(&mut [0x80].as_slice()).is_err());
        assert!(take_number(&mut [0xff; 10].as_slice()).is_err());
    }

    #[test]
    fn counts_come_back_and_a_word_longer_than_the_payload_fails() {
        let mut bytes = Vec::new();
        put_count(&mut bytes, b"word", 300);
        let mut from = bytes.as_slice();
        assert_eq!(take_count(&mut from).unwrap(), Some((b"word".as_slice(), 300)));
        assert_eq!(take_count(&mut from).unwrap(), None);
        assert!(take_count(&mut [9, b'a'].as_slice()).is_err());
        assert!(take_count(&mut [1, b'A', 1].as_slice()).is_err());
    }
}
