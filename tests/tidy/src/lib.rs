//! Rules of the repository that a program can check.
