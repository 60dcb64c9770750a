//! Rules of the repository that a program can check, so that no reviewer has to.
//!
//! Each rule is a function from text to problems, tested here against a planted violation; `tests/repository.rs` applies
//! them all to the repository.

pub mod layers;
pub mod lex;
pub mod manifests;
pub mod prose;
pub mod source;
pub mod tree;

/// One thing that is against a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path from the repository's root.
    pub file: String,
    /// From 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

impl Problem {
    /// A problem of one line, or with line 0 of a file.
    pub fn new(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, text: text.into() }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Problem;

    /// Asserts on which lines a rule finds something.
    pub(crate) fn check(problems: &[Problem], lines: &[usize]) {
        let got: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(got, lines, "{problems:#?}");
    }
}
