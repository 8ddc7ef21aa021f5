//! Filters as people write them: `city = "Bern" and age >= 18`.
//!
//! ```text
//! expression := condition { "and" condition }
//! condition  := field ( "=" | "<" | "<=" | ">" | ">=" ) value
//!             | field "prefix" string
//!             | field "in" "(" value { "," value } ")"
//! field      := name { "." name }
//! name       := letters, digits, "_", "-" or characters beyond ASCII, or a JSON string
//! value      := JSON string, number, true, false or null
//! ```

use super::{Comparison, Condition, Filter, Scalar};
use crate::limits::{QUERY_EXPRESSION_BYTES_MAX, QUERY_VALUE_BYTES_MAX};
use std::fmt;

/// Where and why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// The first character that does not fit, from 1; one more than there are if the text ends too early.
    pub at: usize,
    /// What is there, and what may be.
    pub what: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.what)
    }
}

impl std::error::Error for ExpressionError {}

/// The filter that an expression says.
///
/// # Errors
/// Where the text is no expression, or something in it is over its limit.
pub fn parse(text: &str) -> Result<Filter, ExpressionError> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > QUERY_EXPRESSION_BYTES_MAX {
        return Err(parser.error(0, format!("{} bytes, {QUERY_EXPRESSION_BYTES_MAX} are allowed", text.len())));
    }
    let mut conditions = vec![parser.condition()?];
    loop {
        parser.space();
        let start = parser.at;
        if parser.rest().is_empty() {
            return Filter::new(conditions).map_err(|what| parser.error(start, what.to_owned()));
        }
        if !parser.word().eq_ignore_ascii_case("and") {
            return Err(parser.wrong(start, "\"and\" or the end"));
        }
        conditions.push(parser.condition()?);
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte.
    at: usize,
}

fn is_of_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-') || !character.is_ascii()
}

impl<'a> Parser<'a> {
    fn condition(&mut self) -> Result<Condition, ExpressionError> {
        self.space();
        let start = self.at;
        let mut field = self.name()?;
        while self.takes(".") {
            field.push('.');
            field.push_str(&self.name()?);
        }
        self.space();
        let comparison = self.comparison()?;
        let mut values = Vec::new();
        if comparison == Comparison::In {
            self.wants("(", "\"(\"")?;
            values.push(self.value()?);
            while self.takes(",") {
                values.push(self.value()?);
            }
            self.wants(")", "\",\" or \")\"")?;
        } else {
            values.push(self.value()?);
        }
        Condition::new(&field, comparison, values).map_err(|what| self.error(start, what.to_owned()))
    }

    fn name(&mut self) -> Result<String, ExpressionError> {
        self.space();
        let start = self.at;
        if self.rest().starts_with('"') {
            return match self.string()? {
                Scalar::Text(name) if !name.contains('.') => Ok(name),
                _ => Err(self.error(start, "a name with a dot cannot be asked for".to_owned())),
            };
        }
        match self.word() {
            "" => Err(self.wrong(start, "the name of a field")),
            name => Ok(name.to_owned()),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, ExpressionError> {
        let start = self.at;
        // Longer ones first.
        for comparison in
            [Comparison::AtMost, Comparison::AtLeast, Comparison::Less, Comparison::More, Comparison::Equal]
        {
            if self.takes(comparison.text()) {
                return Ok(comparison);
            }
        }
        match self.word() {
            word if word.eq_ignore_ascii_case("prefix") => Ok(Comparison::Prefix),
            word if word.eq_ignore_ascii_case("in") => Ok(Comparison::In),
            _ => Err(self.wrong(start, "=, <, <=, >, >=, prefix or in")),
        }
    }

    fn value(&mut self) -> Result<Scalar, ExpressionError> {
        const WANTED: &str = "a text in double quotes, a number, true, false or null";
        self.space();
        let start = self.at;
        if self.rest().starts_with('"') {
            return self.string();
        }
        let is_of_value = |character: char| is_of_name(character) || matches!(character, '+' | '.');
        let length = self.rest().find(|character| !is_of_value(character)).unwrap_or(self.rest().len());
        let text = &self.rest()[..length];
        let value = Scalar::parse(text.as_bytes()).ok_or_else(|| self.wrong(start, WANTED))?;
        self.at += length;
        self.bounded(start, value)
    }

    fn string(&mut self) -> Result<Scalar, ExpressionError> {
        let start = self.at;
        let mut is_escaped = false;
        let end = self.rest().char_indices().skip(1).find_map(|(at, character)| match character {
            '"' if !is_escaped => Some(at + 1),
            _ => {
                is_escaped = character == '\\' && !is_escaped;
                None
            }
        });
        let Some(length) = end else {
            return Err(self.error(start, "a text that does not end, expected \" behind it".to_owned()));
        };
        let text = &self.rest()[..length];
        if let Err(error) = crate::json::check(text.as_bytes()) {
            return Err(self.error(start + error.at.min(length - 1), format!("expected {}", error.wanted)));
        }
        let value = Scalar::parse(text.as_bytes()).ok_or_else(|| self.wrong(start, "a text"))?;
        self.at += length;
        self.bounded(start, value)
    }

    fn bounded(&self, start: usize, value: Scalar) -> Result<Scalar, ExpressionError> {
        let bytes = value.to_json().len();
        if bytes > QUERY_VALUE_BYTES_MAX {
            let what = format!("a value of {bytes} bytes, {QUERY_VALUE_BYTES_MAX} are allowed");
            return Err(self.error(start, what));
        }
        Ok(value)
    }

    /// What may be of a name; nothing if nothing is.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|character| !is_of_name(character)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let is_there = self.rest().starts_with(sign);
        if is_there {
            self.at += sign.len();
        }
        is_there
    }

    fn wants(&mut self, sign: &str, wanted: &str) -> Result<(), ExpressionError> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(self.at, wanted)) }
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, at: usize, wanted: &str) -> ExpressionError {
        let found = self.text.get(at..).and_then(|rest| rest.chars().next());
        let found = found.map_or_else(|| "it ends".to_owned(), |found| format!("found {found:?}"));
        self.error(at, format!("{found}, expected {wanted}"))
    }

    fn error(&self, at: usize, what: String) -> ExpressionError {
        let before = self.text.char_indices().take_while(|(byte, _)| *byte < at).count();
        ExpressionError { at: before + 1, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_the_place() {
        for (text, error) in [
            ("", "at character 1: it ends, expected the name of a field"),
            ("city", "at character 5: it ends, expected =, <, <=, >, >=, prefix or in"),
            ("city ! 1", "at character 6: found '!', expected =, <, <=, >, >=, prefix or in"),
            ("city =", "at character 7: it ends, expected a text in double quotes, a number, true, false or null"),
            ("é = Bern", "at character 5: found 'B', expected a text in double quotes, a number, true, false or null"),
            ("a = 1 or b = 2", "at character 7: found 'o', expected \"and\" or the end"),
            ("a = \"x", "at character 5: a text that does not end, expected \" behind it"),
            ("a in 1", "at character 6: found '1', expected \"(\""),
            ("a in (1 2)", "at character 9: found '2', expected \",\" or \")\""),
            ("a prefix 1", "at character 1: a prefix that is no text"),
            ("a = NaN", "at character 5: found 'N', expected a text in double quotes, a number, true, false or null"),
            ("a. = 1", "at character 4: found '=', expected the name of a field"),
            ("\"a.b\" = 1", "at character 1: a name with a dot cannot be asked for"),
            ("a = \"\\x\"", "at character 7: expected one of the escapes \" \\ / b f n r t u"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn any_text_is_taken_or_refused() {
        let alphabet =
            ["a", "\"", "\\", "é", " ", "=", "<", "in", "(", ")", ",", ".", "1", "-", "and", "\0", "prefix", "😀"];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 13 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 1;
            if let Err(error) = parse(&text) {
                assert!(error.at <= text.chars().count() + 1, "{text:?}: {error}");
            }
        }
    }
}
