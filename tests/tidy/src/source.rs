//! Rules on Rust source: sizes, and things that belong to one crate only.

use crate::lex::{code, line, without_tests, words};
use crate::{Problem, tree::File};

/// A longer file holds two things.
const FILE_LINES_MAX: usize = 700;
/// A longer function does two things. The match of a wide enum, one line an arm, is what needs the room.
const FUNCTION_LINES_MAX: usize = 100;
/// Crates whose work is unsafe by nature, and the measurement of the machine's peak that the kernels are held against.
const UNSAFE_HOMES: [&str; 3] = ["crates/kernels/", "crates/transfer/", "benches/kernels.rs"];
/// Crates that run the same in simulated time.
const TIMELESS_CRATES: [&str; 2] = ["crates/engine/src/", "crates/kvcache/src/"];

/// All rules on one Rust file.
pub fn check(file: &File) -> Vec<Problem> {
    let code = code(&file.text);
    let rules = [opening, file_length, function_length, unsafe_address, environment, clock];
    rules.into_iter().flat_map(|rule| rule(file, &code)).collect()
}

/// A source file opens with a sentence on what it is for. Tests say it by their names.
fn opening(file: &File, _code: &str) -> Vec<Problem> {
    if !file.path.contains("/src/") {
        return Vec::new();
    }
    let first =
        file.text.lines().find(|line| !line.starts_with("#!") && !line.is_empty()).unwrap_or_default();
    if first.starts_with("//!") {
        return Vec::new();
    }
    vec![Problem::new(&file.path, 1, "a file opens with `//!` and a sentence on what it offers")]
}

fn file_length(file: &File, _code: &str) -> Vec<Problem> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let text = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by responsibility");
    vec![Problem::new(&file.path, FILE_LINES_MAX + 1, text)]
}

fn function_length(file: &File, code: &str) -> Vec<Problem> {
    let functions = words(code, "fn").filter_map(|at| body(code, at).map(|end| (at, end)));
    functions
        .filter_map(|(at, end)| {
            let lines = code[at..end].matches('\n').count() + 1;
            let text = format!("a function of {lines} lines, at most {FUNCTION_LINES_MAX}: name its parts");
            (lines > FUNCTION_LINES_MAX).then(|| Problem::new(&file.path, line(code, at), text))
        })
        .collect()
}

/// Where the body of the function whose `fn` is at `at` ends; `None` without a body.
fn body(code: &str, at: usize) -> Option<usize> {
    let (mut nested, mut braces) = (0_i32, 0_i32);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '(' | '[' if braces == 0 => nested += 1,
            ')' | ']' if braces == 0 => nested -= 1,
            ';' if braces == 0 && nested == 0 => return None,
            // A `fn` type, not an item: its list or argument ends.
            _ if nested < 0 => return None,
            '{' if nested == 0 || braces > 0 => braces += 1,
            '}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(at + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn unsafe_address(file: &File, code: &str) -> Vec<Problem> {
    if UNSAFE_HOMES.iter().any(|home| file.path.starts_with(home)) {
        return Vec::new();
    }
    let text = "`unsafe` lives in crates/kernels and crates/transfer, behind safe functions";
    let blocks = words(code, "unsafe");
    let permits = words(code, "unsafe_code");
    blocks.chain(permits).map(|at| Problem::new(&file.path, line(code, at), text)).collect()
}

/// Code below the binary is given typed options.
fn environment(file: &File, code: &str) -> Vec<Problem> {
    let is_free = ["crates/baton/", "crates/xtask/", "tests/", "benches/"]
        .iter()
        .any(|home| file.path.starts_with(home))
        || ["/tests/", "/tests.rs", "/benches/", "/examples/"].iter().any(|part| file.path.contains(part));
    if is_free {
        return Vec::new();
    }
    let code = without_tests(code);
    let uses = words(code, "std::env").chain(words(code, "env::var")).chain(words(code, "env::var_os"));
    let text = "only the binary reads the environment; take an option, or a function that reads it";
    let mut lines: Vec<_> = uses.map(|at| line(code, at)).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.into_iter().map(|line| Problem::new(&file.path, line, text)).collect()
}

fn clock(file: &File, code: &str) -> Vec<Problem> {
    if !TIMELESS_CRATES.iter().any(|home| file.path.starts_with(home)) {
        return Vec::new();
    }
    let code = without_tests(code);
    let text =
        "no clock here: a simulation must give the same result every time; take the time as an argument";
    let uses = ["SystemTime", "Instant::now", "thread::sleep"].into_iter().flat_map(|name| words(code, name));
    uses.map(|at| Problem::new(&file.path, line(code, at), text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn check(path: &str, text: &str, lines: &[usize]) {
        let file = File { path: path.to_owned(), text: format!("//! Opens.\n{text}") };
        testing::check(&super::check(&file), lines);
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        let file = |text: &str| File { path: "crates/x/src/lib.rs".to_owned(), text: text.to_owned() };
        testing::check(&super::check(&file("use std::fmt;\n")), &[1]);
        testing::check(&super::check(&file("")), &[1]);
        testing::check(&super::check(&File { path: "crates/x/tests/a.rs".to_owned(), ..file("") }), &[]);
        testing::check(&super::check(&file("#![no_std]\n\n//! Opens.\n")), &[]);
    }

    #[test]
    fn sizes() {
        check("crates/x/src/a.rs", &"\n".repeat(FILE_LINES_MAX - 1), &[]);
        check("crates/x/src/a.rs", &"\n".repeat(FILE_LINES_MAX), &[FILE_LINES_MAX + 1]);
        let function = |lines: usize| format!("fn f<'a>(x: [u8; 2]) -> u8 {{{}}}\n", "\n".repeat(lines - 1));
        check("crates/x/src/a.rs", &function(FUNCTION_LINES_MAX), &[]);
        check("crates/x/src/a.rs", &function(FUNCTION_LINES_MAX + 1), &[2]);
        let declared =
            format!("trait T {{ fn f(&self);\n fn g(f: fn(u8)) {{}} {} }}", "\n".repeat(FUNCTION_LINES_MAX));
        check("crates/x/src/a.rs", &declared, &[]);
        let braces = format!("fn f() {{ let a = \"}}\"; // }}\n{} }}", "\n".repeat(FUNCTION_LINES_MAX));
        check("crates/x/src/a.rs", &braces, &[2]);
    }

    #[test]
    fn unsafe_has_an_address() {
        check("crates/model/src/a.rs", "fn f() { unsafe { g() } }", &[2]);
        check("crates/model/src/a.rs", "#![allow(unsafe_code)]", &[2]);
        check("crates/model/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\";", &[]);
        check("crates/kernels/src/a.rs", "fn f() { unsafe { g() } }", &[]);
    }

    #[test]
    fn only_the_binary_reads_the_environment() {
        let source = "fn f() {\n std::env::var(\"A\");\n}\n";
        check("crates/model/src/a.rs", source, &[3]);
        check("crates/model/src/a.rs", "use std::env;\nfn f() { env::var_os(\"A\"); }", &[2, 3]);
        check("crates/model/src/a.rs", "const A: &str = env!(\"CARGO_PKG_NAME\");", &[]);
        check("crates/model/src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {source} }}"), &[]);
        for free in
            ["crates/baton/src/a.rs", "crates/xtask/src/a.rs", "crates/model/tests/a.rs", "tests/tidy/a.rs"]
        {
            check(free, source, &[]);
        }
    }

    #[test]
    fn no_clock_in_what_is_simulated() {
        check("crates/engine/src/a.rs", "fn f() { Instant::now(); }\nuse std::time::SystemTime;", &[3, 2]);
        check("crates/engine/src/a.rs", "fn f(deadline: Instant) {}", &[]);
        check("crates/worker/src/a.rs", "fn f() { Instant::now(); }", &[]);
    }
}
