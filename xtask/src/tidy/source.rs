//! Rust source with everything blanked that is no code of the product: comments, texts and test modules. Lines stay
//! where they are.

use std::ops::Range;

/// The code of a file: comments, text and character literals are spaces.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = blank_length(rest, code.chars().next_back());
        if length == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            blank(&mut code, &rest[..length]);
            rest = &rest[length..];
        }
    }
    code
}

/// As [`code`], without modules that are compiled for tests alone.
pub(super) fn product(text: &str) -> String {
    let mut code = code(text);
    for module in test_modules(&code) {
        let mut blanked = String::with_capacity(module.len());
        blank(&mut blanked, &code[module.clone()]);
        code.replace_range(module, &blanked);
    }
    code
}

/// Lines of a file, comments included, without modules that are compiled for tests alone.
pub(super) fn product_line_count(text: &str) -> usize {
    let code = code(text);
    let in_tests: usize = test_modules(&code).into_iter().map(|module| code[module].lines().count()).sum();
    text.lines().count() - in_tests
}

/// Where modules stand that are compiled for tests alone.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut modules = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(") {
        let start = from + found;
        let attribute = &code[start..start + code[start..].find(']').map_or(code.len() - start, |end| end + 1)];
        from = start + attribute.len();
        let for_tests = attribute == "#[cfg(test)]" || attribute.starts_with("#[cfg(all(test,");
        if for_tests && let Some(end) = module_end(code, from) {
            modules.push(start..end);
            from = end;
        }
    }
    modules
}

/// Whether a file is compiled for tests or benchmarks alone, by its place in its package.
pub(super) fn is_test_file(package: &str, path: &str) -> bool {
    let inside = path.strip_prefix(package).unwrap_or(path).trim_start_matches('/');
    inside.ends_with("/tests.rs") || !inside.starts_with("src/") || inside.contains("/tests/")
}

/// Identifiers and `::`, `{`, `}`, `,`, each with its line; other marks are dropped.
pub(super) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                next.len_utf8()
            };
            if word > 0 || matches!(&rest[..length], "::" | "{" | "}" | ",") {
                tokens.push((at + 1, &rest[..length]));
            }
            rest = &rest[length..];
        }
    }
    tokens
}

fn blank(code: &mut String, text: &str) {
    code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

/// Bytes at the start of `rest` that are a comment or a literal; 0 if it starts with code.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest);
    }
    if !in_word && let Some(length) = raw_text_length(rest) {
        return length;
    }
    if rest.starts_with('\'') { character_length(rest) } else { 0 }
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_text_length(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - body.len();
    Some(body.find(&close).map_or(rest.len(), |end| start + end + close.len()))
}

/// A character literal, told from a lifetime by its closing quote.
fn character_length(rest: &str) -> usize {
    let mut inside = rest.char_indices().skip(1);
    match inside.next() {
        Some((_, '\\')) => rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3),
        Some((_, _)) if inside.next().is_some_and(|(_, c)| c == '\'') => {
            rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at)
        }
        _ => 0,
    }
}

/// End of the module that stands at `from`, after attributes and visibility; nothing if something else stands there.
fn module_end(code: &str, from: usize) -> Option<usize> {
    let open = from + code[from..].find(['{', ';'])?;
    if !code[from..open].split_whitespace().any(|word| word == "mod") {
        return None;
    }
    if code[open..].starts_with(';') {
        return Some(open + 1);
    }
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(open + at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a(\"x \\\" y\", 'z', '\\'', r#\"q \" \"#); // c\n/* d /* e */ */ fn f<'g>() {}";
        let code = code(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a(", ",", ",", ",", ");", "fn", "f<'g>()", "{}"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn test_modules_are_no_product() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { if x {} }\n}\nfn c() {}\n#[cfg(test)]\nfn d() {}\n";
        let product = product(text);
        assert!(product.contains("fn a") && product.contains("fn c") && product.contains("fn d"), "{product}");
        assert!(!product.contains("fn b"), "{product}");
    }

    #[test]
    fn files_of_tests_are_known_by_their_place() {
        let is_test = |path| is_test_file("core", path);
        assert!(
            is_test("core/tests/it/main.rs") && is_test("core/src/appfile/tests.rs") && is_test("core/examples/a.rs")
        );
        assert!(!is_test("core/src/lib.rs") && !is_test_file("examples/word-count", "examples/word-count/src/lib.rs"));
    }

    #[test]
    fn lines_of_test_modules_do_not_count() {
        assert_eq!(product_line_count("fn a() {}\n\n// b\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n"), 3);
    }

    #[test]
    fn tokens_keep_their_lines() {
        let found = tokens("use std::{fs,\n io};");
        assert_eq!(found, [(1, "use"), (1, "std"), (1, "::"), (1, "{"), (1, "fs"), (1, ","), (2, "io"), (2, "}")]);
    }
}
