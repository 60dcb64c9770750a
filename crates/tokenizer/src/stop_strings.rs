//! Finds stop strings in a text that arrives in pieces.

/// Cuts a stream of text before the first stop string. Only text that may be the start of one is held back.
///
/// The match that ends first wins; of several that end at the same character, the longest. So the result does not
/// depend on how the text was cut into pieces.
pub struct StopStrings {
    matchers: Vec<Matcher>,
    held: String,
    matched: Option<usize>,
}

/// What one piece of text gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that is safe to send now.
    pub text: String,
    /// Index of the stop string that ended the text, in the list given to [`StopStrings::new`].
    pub matched: Option<usize>,
}

/// One stop string and how much of it the text ends with (Knuth, Morris and Pratt 1977).
struct Matcher {
    index: usize,
    pattern: Vec<u8>,
    /// For each length of a matched prefix, from 1: the length of its longest proper prefix that is also its suffix.
    fallback: Vec<usize>,
    state: usize,
}

impl StopStrings {
    /// Watches for these strings. Empty ones never match.
    pub fn new(strings: Vec<String>) -> Self {
        let matchers = strings.into_iter().enumerate().filter(|(_, string)| !string.is_empty());
        Self {
            matchers: matchers.map(|(index, string)| Matcher::new(index, string)).collect(),
            held: String::new(),
            matched: None,
        }
    }

    /// Takes the next piece of text. After a match, all further text is dropped.
    pub fn push(&mut self, piece: &str) -> StopStep {
        if self.matched.is_some() {
            return StopStep { text: String::new(), matched: self.matched };
        }
        let text_start = self.held.len();
        self.held.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            if let Some((index, length)) = self.advance(byte) {
                self.matched = Some(index);
                let mut text = std::mem::take(&mut self.held);
                text.truncate(text_start + offset + 1 - length);
                return StopStep { text, matched: self.matched };
            }
        }
        let keep = self.matchers.iter().map(|matcher| matcher.state).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        StopStep { text: std::mem::replace(&mut self.held, tail), matched: None }
    }

    /// The text that was held back and turned out not to be a stop string. Nothing after a match.
    pub fn finish(&mut self) -> String {
        self.matchers.iter_mut().for_each(|matcher| matcher.state = 0);
        std::mem::take(&mut self.held)
    }

    /// Feeds one byte to every matcher; index and length of the longest match that ends here.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut longest: Option<(usize, usize)> = None;
        for matcher in &mut self.matchers {
            let length = matcher.pattern.len();
            if matcher.advance(byte) && longest.is_none_or(|(_, best)| length > best) {
                longest = Some((matcher.index, length));
            }
        }
        longest
    }
}

impl Matcher {
    fn new(index: usize, string: String) -> Self {
        let pattern = string.into_bytes();
        let mut fallback = vec![0; pattern.len()];
        let mut length = 0;
        for end in 1..pattern.len() {
            while length > 0 && pattern[length] != pattern[end] {
                length = fallback[length - 1];
            }
            length += usize::from(pattern[length] == pattern[end]);
            fallback[end] = length;
        }
        Self { index, pattern, fallback, state: 0 }
    }

    /// Whether the string is complete with this byte. Not to be called again after that.
    fn advance(&mut self, byte: u8) -> bool {
        while self.state > 0 && self.pattern[self.state] != byte {
            self.state = self.fallback[self.state - 1];
        }
        self.state += usize::from(self.pattern[self.state] == byte);
        self.state == self.pattern.len()
    }
}
