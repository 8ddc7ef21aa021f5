//! Finds a field in a JSON text, without allocation and without recursion. The text was checked when it was written; one
//! that is no JSON gives something or nothing.

use super::scalar::unescaped;

/// The text of the value at a path of names with dots between them, white space around it included.
pub(super) fn find<'a>(text: &'a [u8], path: &str) -> Option<&'a [u8]> {
    let mut text = text;
    for name in path.split('.') {
        text = member(text, name)?;
    }
    Some(text)
}

/// The last member of that name of an object.
fn member<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    walk(text, |of, value| {
        if of == name {
            found = Some(value);
        }
    })?;
    found
}

/// Calls with the names and values of an object's members, in their order, as far as the text is one.
pub(super) fn each_member<'a>(text: &'a [u8], each: impl FnMut(&str, &'a [u8])) {
    let _ = walk(text, each);
}

/// The same; nothing where the text is no object.
fn walk<'a>(text: &'a [u8], mut each: impl FnMut(&str, &'a [u8])) -> Option<()> {
    let mut rest = spaced(text).strip_prefix(b"{")?;
    loop {
        rest = spaced(rest);
        if rest.first() != Some(&b'"') {
            return Some(());
        }
        let length = string(rest)?;
        let (of, behind) = rest.split_at(length);
        let value = spaced(behind).strip_prefix(b":")?;
        let length = value_bytes(value)?;
        if let Some(of) = unescaped(of) {
            each(&of, &value[..length]);
        }
        rest = match spaced(&value[length..]).strip_prefix(b",") {
            Some(rest) => rest,
            None => return Some(()),
        };
    }
}

fn spaced(text: &[u8]) -> &[u8] {
    let space = text.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
    &text[space.unwrap_or(text.len())..]
}

/// Bytes of the string at the start of the text, both quotes included.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Bytes of the value at the start of the text, with the white space before it.
fn value_bytes(text: &[u8]) -> Option<usize> {
    let mut at = text.len() - spaced(text).len();
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => at += string(&text[at..])?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => {
                let rest = &text[at..];
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r');
                at += rest.iter().position(ends).filter(|length| *length > 0)?;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}
