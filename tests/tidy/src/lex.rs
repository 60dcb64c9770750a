//! Just enough of Rust's lexical grammar (<https://doc.rust-lang.org/reference/tokens.html>) to tell code from comments
//! and literals.

/// The source with every character of comments and of string and character literals replaced by a space. Lines and
/// columns stay where they are.
pub fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment(&chars, at);
        match end {
            Some(end) => {
                let end = end.min(chars.len());
                out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// The code up to its unit tests, which by our convention are a file's last item.
pub fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let rest = code[start + "#[cfg(test)]".len()..].trim_start();
        let item = rest.strip_prefix("pub(crate) ").unwrap_or(rest);
        if item.starts_with("mod ") && item[..item.find(['{', ';']).unwrap_or(0) + 1].ends_with('{') {
            return &code[..start];
        }
        from = start + 1;
    }
    code
}

/// Where `word` stands by itself: offsets in bytes.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The line, from 1, that an offset is on.
pub fn line(code: &str, offset: usize) -> usize {
    code[..offset].matches('\n').count() + 1
}

/// If a comment or a literal starts at `at`, where it ends.
fn literal_or_comment(chars: &[char], at: usize) -> Option<usize> {
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if chars.get(at + 1) == Some(&'/') => Some(find(chars, at, &['\n'])),
        '/' if chars.get(at + 1) == Some(&'*') => Some(block_comment(chars, at)),
        '"' => Some(string(chars, at)),
        'r' | 'b' | 'c' if !after_word => prefixed_string(chars, at),
        '\'' => character(chars, at),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, wanted: &[char]) -> usize {
    chars[from..].windows(wanted.len()).position(|window| window == wanted).map_or(chars.len(), |n| from + n)
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `b"`, `c"`, `r"`, `r#"`, `br#"`; `None` for a word that only starts so.
fn prefixed_string(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    while at < start + 2 && matches!(chars.get(at), Some('r' | 'b' | 'c')) {
        at += 1;
    }
    let is_raw = chars[start..at].contains(&'r');
    let quotes = at;
    while is_raw && chars.get(at) == Some(&'#') {
        at += 1;
    }
    if chars.get(at) != Some(&'"') {
        return None;
    }
    if !is_raw {
        return Some(string(chars, at));
    }
    let mut close = vec!['"'];
    close.resize(at - quotes + 1, '#');
    Some(find(chars, at + 1, &close) + close.len())
}

/// `'x'` or `'\...'`; `None` for a lifetime.
fn character(chars: &[char], start: usize) -> Option<usize> {
    match (chars.get(start + 1)?, chars.get(start + 2)?) {
        ('\\', _) => Some(find(chars, start + 3, &['\'']) + 1),
        (_, '\'') => Some(start + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let got = code(source);
        assert_eq!(got.len(), source.len(), "columns stay (for ASCII)");
        assert_eq!(got.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn comments_and_literals_go_code_stays() {
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check(r#"f("x \" y", 'z', '\'', b"q") g"#, "f( , , , ) g");
        check("r#\"a \" b\"# c br\"x\" d", "c d");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("bar\"x\" rabc", "bar rabc");
        check("let c = '{'; }", "let c = ; }");
    }

    #[test]
    fn tests_are_cut_off_only_where_they_start() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n b }"), "a\n");
        assert_eq!(without_tests("a #[cfg(test)] mod tests; b"), "a #[cfg(test)] mod tests; b");
        assert_eq!(without_tests("#[cfg(test)] use x; a"), "#[cfg(test)] use x; a");
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(words("safe unsafe unsafe_code (unsafe)", "unsafe").collect::<Vec<_>>(), [5, 25]);
    }
}
