//! Whether bytes are a JSON text (RFC 8259): a scan without allocation and without recursion.
//!
//! Stricter than the grammar in one point: an escaped surrogate must be one of a pair, because a text with a lone one
//! cannot be said in UTF-8 and parsers refuse it. Numbers may be of any size; names may occur twice.

use crate::limits::JSON_DEPTH_MAX;
use std::fmt;

/// Where and why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset of the first byte that does not fit, from 0; the length of the text if that ends too early.
    pub at: usize,
    /// That byte; `None` at the end of the text.
    pub found: Option<u8>,
    /// What may stand there.
    pub wanted: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            None => write!(f, "it ends at byte {}", self.at)?,
            Some(byte @ 0x20..0x7f) => write!(f, "byte {} is {:?}", self.at, char::from(byte))?,
            Some(byte) => write!(f, "byte {} is 0x{byte:02x}", self.at)?,
        }
        write!(f, ", expected {}", self.wanted)
    }
}

impl std::error::Error for JsonError {}

const DEEP: &str = "no more than 100 arrays and objects within each other";
const _: () = assert!(JSON_DEPTH_MAX == 100, "the message names the limit");
const VALUE: &str = "a value";
const HEX: &str = "four hexadecimal digits";
const PAIR: &str = "the second half of a surrogate pair";

/// Bytes that end the plain part of a string: the quote, the backslash, control characters.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

/// Checks that `text` is one JSON value with nothing but white space around it.
///
/// # Errors
/// The first byte that does not fit.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    if let Err(error) = std::str::from_utf8(text) {
        let at = error.valid_up_to();
        return Err(JsonError { at, found: text.get(at).copied(), wanted: "UTF-8" });
    }
    Scan { text, at: 0, open: Open::default() }.run()
}

/// The arrays and objects that are open: a bit each, 1 for an object, the innermost lowest.
#[derive(Default)]
struct Open {
    kinds: u128,
    depth: usize,
}

const _: () = assert!(JSON_DEPTH_MAX <= 128, "a bit for each");

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    open: Open,
}

impl Scan<'_> {
    fn run(mut self) -> Result<(), JsonError> {
        loop {
            // A value begins here, within whatever is open.
            self.space();
            let opened = match self.peek() {
                Some(b'{') => self.enter(1)?,
                Some(b'[') => self.enter(0)?,
                _ => {
                    self.scalar()?;
                    false
                }
            };
            if opened {
                continue;
            }
            if self.close_and_go_on()? {
                return Ok(());
            }
        }
    }

    /// Opens an array or an object. Whether a value is to follow: not if it is empty.
    fn enter(&mut self, kind: u128) -> Result<bool, JsonError> {
        if self.open.depth == JSON_DEPTH_MAX {
            return Err(self.wrong(DEEP));
        }
        self.open.kinds = self.open.kinds << 1 | kind;
        self.open.depth += 1;
        self.at += 1;
        self.space();
        if self.peek() == Some(if kind == 1 { b'}' } else { b']' }) {
            self.leave();
            return Ok(false);
        }
        if kind == 1 {
            self.name("a name in quotes or }")?;
        }
        Ok(true)
    }

    fn leave(&mut self) {
        self.open.kinds >>= 1;
        self.open.depth -= 1;
        self.at += 1;
    }

    /// Behind a value: closes what ends here and takes the comma before the next value. Whether the text is at its end.
    fn close_and_go_on(&mut self) -> Result<bool, JsonError> {
        loop {
            self.space();
            if self.open.depth == 0 {
                return if self.at == self.text.len() { Ok(true) } else { Err(self.wrong("nothing behind the value")) };
            }
            let is_object = self.open.kinds & 1 == 1;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if is_object {
                        self.space();
                        self.name("a name in quotes")?;
                    }
                    return Ok(false);
                }
                Some(b'}') if is_object => self.leave(),
                Some(b']') if !is_object => self.leave(),
                _ => return Err(self.wrong(if is_object { ", or }" } else { ", or ]" })),
            }
        }
    }

    /// A name of an object and the colon behind it.
    fn name(&mut self, wanted: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong(wanted));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("a colon"));
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.wrong(VALUE)),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        for byte in word {
            if self.peek() != Some(*byte) {
                return Err(self.wrong("true, false or null"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            self.at += rest.iter().position(|byte| SPECIAL[usize::from(*byte)]).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                None => return Err(self.wrong("the end of the string")),
                Some(_) => return Err(self.wrong("an escape instead of a control character")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let start = self.at;
                match self.unit()? {
                    0xd800..0xdc00 => {
                        if self.text.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(self.wrong(PAIR));
                        }
                        self.at += 1;
                        let second = self.at;
                        if !(0xdc00..0xe000).contains(&self.unit()?) {
                            self.at = second;
                            return Err(self.wrong(PAIR));
                        }
                    }
                    0xdc00..0xe000 => {
                        self.at = start;
                        return Err(self.wrong("no second half of a surrogate pair alone"));
                    }
                    _ => {}
                }
            }
            _ => return Err(self.wrong("one of the escapes \" \\ / b f n r t u")),
        }
        Ok(())
    }

    /// The `u` of an escape and its four digits.
    fn unit(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or_else(|| self.wrong(HEX))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.wrong("no digit behind a leading 0"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        if count == 0 { Err(self.wrong("a digit")) } else { Ok(()) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong(&self, wanted: &'static str) -> JsonError {
        JsonError { at: self.at, found: self.peek(), wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &[u8]) -> String {
        check(text).unwrap_err().to_string()
    }

    #[test]
    fn texts_of_every_kind_are_taken() {
        for text in [
            "0",
            "-0",
            "-12.5e+3",
            "1E9",
            "true",
            "false",
            "null",
            "\"\"",
            "[]",
            "{}",
            " [ ] ",
            "{ }",
            "[1,2]",
            "[[],{}]",
            r#"{"a":[1,{"b":null}],"a":"\u00e9\ud83d\ude00\n\/"}"#,
            "\t{\"k\" : 1 , \"l\":[ true ]}\r\n",
            "\"päß\"",
            "12345678901234567890123456789e999",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_by_its_byte() {
        for (text, wanted) in [
            ("", "it ends at byte 0, expected a value"),
            ("hello", "byte 0 is 'h', expected a value"),
            ("nul", "it ends at byte 3, expected true, false or null"),
            ("{\"a\":1,}", "byte 7 is '}', expected a name in quotes"),
            ("[1,]", "byte 3 is ']', expected a value"),
            ("[1 2]", "byte 3 is '2', expected , or ]"),
            ("[1}", "byte 2 is '}', expected , or ]"),
            ("{\"a\" 1}", "byte 5 is '1', expected a colon"),
            ("{1:2}", "byte 1 is '1', expected a name in quotes or }"),
            ("01", "byte 1 is '1', expected no digit behind a leading 0"),
            ("1.", "it ends at byte 2, expected a digit"),
            ("-", "it ends at byte 1, expected a digit"),
            ("+1", "byte 0 is '+', expected a value"),
            ("1e", "it ends at byte 2, expected a digit"),
            ("NaN", "byte 0 is 'N', expected a value"),
            ("1 x", "byte 2 is 'x', expected nothing behind the value"),
            ("\"a", "it ends at byte 2, expected the end of the string"),
            ("\"a\nb\"", "byte 2 is 0x0a, expected an escape instead of a control character"),
            (r#""\x""#, "byte 2 is 'x', expected one of the escapes \" \\ / b f n r t u"),
            (r#""\u12g4""#, "byte 5 is 'g', expected four hexadecimal digits"),
            (r#""\ud800""#, "byte 7 is '\"', expected the second half of a surrogate pair"),
            (r#""\ud800\u0041""#, "byte 8 is 'u', expected the second half of a surrogate pair"),
            (r#""\udc00""#, "byte 2 is 'u', expected no second half of a surrogate pair alone"),
        ] {
            assert_eq!(said(text.as_bytes()), wanted, "{text}");
        }
        assert_eq!(said(b"\"\xff\""), "byte 1 is 0xff, expected UTF-8");
        assert_eq!(said(b"\xef\xbb\xbf1"), "byte 0 is 0xef, expected a value", "a byte order mark is no white space");
    }

    #[test]
    fn depth_is_bounded_and_does_not_cost_the_stack() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert_eq!(check(&nested(JSON_DEPTH_MAX)), Ok(()));
        assert_eq!(
            said(&nested(JSON_DEPTH_MAX + 1)),
            "byte 100 is '[', expected no more than 100 arrays and objects within each other"
        );
        assert!(check(&b"{\"a\":".repeat(1 << 20)).is_err());
        // One beside the other is not deep.
        let flat = format!("[{}[]]", "[{}],".repeat(10_000));
        assert_eq!(check(flat.as_bytes()), Ok(()));
    }

    /// Against another parser: texts made of pieces, most of them broken somewhere.
    #[test]
    fn another_parser_says_the_same() {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "1",
            "-",
            "0",
            ".5",
            "e3",
            "true",
            "null",
            "fals",
            " ",
            "\n",
            "\"",
            "\\",
            "x",
        ];
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut good = 0;
        for _ in 0..200_000 {
            let text: String = (0..=next(7)).map(|_| pieces[next(pieces.len())]).collect();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert_eq!(check(text.as_bytes()).is_ok(), theirs, "{text}");
            good += usize::from(theirs);
        }
        assert!(good > 1_000, "{good} of the texts were JSON");
    }
}
