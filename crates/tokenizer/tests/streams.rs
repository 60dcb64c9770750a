//! Detokeniser and stop strings on streams cut at any place.

mod common;

use baton_tokenizer::{Detokenizer, StopStep, StopStrings, Tokenizer};
use baton_types::TokenId;
use common::{Random, build, byte_level, ids, seed, sentence_piece};

fn pieces(mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(TokenId(*id))).collect();
    pieces.push(detokenizer.finish());
    pieces
}

fn stop(strings: &[&str]) -> StopStrings {
    StopStrings::new(strings.iter().map(|string| (*string).to_owned()).collect())
}

fn step(text: &str, matched: Option<usize>) -> StopStep {
    StopStep { text: text.into(), matched }
}

/// Token b of this vocabulary is byte b.
fn bytes_tokenizer() -> Tokenizer {
    build(byte_level("gpt-2", &[], &["<|end|>"], &["<tool é>"]))
}

#[test]
fn a_character_comes_with_its_last_byte() {
    let tokenizer = bytes_tokenizer();
    let got = |ids: &[u32]| pieces(Detokenizer::new(&tokenizer, false), ids);
    assert_eq!(got(&[0x61, 0xC3, 0xA9, 0x62]), ["a", "", "é", "b", ""]);
    assert_eq!(got(&[0xF0, 0x9F, 0x98, 0x80]), ["", "", "", "😀", ""]);
    assert_eq!(got(&[0xF0, 0x9F, 0x98]), ["", "", "", "\u{fffd}"], "a cut character is one sign");
    assert_eq!(
        got(&[0xF0, 0x9F, 0x61]),
        ["", "", "\u{fffd}a", ""],
        "so is a broken one, once that is certain"
    );
    assert_eq!(
        got(&[0xFF, 0x80]),
        ["\u{fffd}", "\u{fffd}", ""],
        "bytes that begin no character are certain at once"
    );
    assert_eq!(got(&[0xC3, 0xC3, 0xA9]), ["", "\u{fffd}", "é", ""]);
}

#[test]
fn special_tokens_are_shown_or_skipped_and_added_tokens_always_shown() {
    let tokenizer = bytes_tokenizer();
    assert_eq!(pieces(Detokenizer::new(&tokenizer, true), &[0x61, 256, 257]), ["a", "", "<tool é>", ""]);
    assert_eq!(pieces(Detokenizer::new(&tokenizer, false), &[256, 257]), ["<|end|>", "<tool é>", ""]);
    // A special token inside a character breaks it, unless it is skipped.
    assert_eq!(pieces(Detokenizer::new(&tokenizer, true), &[0xC3, 256, 0xA9]), ["", "", "é", ""]);
    assert_eq!(pieces(Detokenizer::new(&tokenizer, false), &[0xC3, 256]), ["", "\u{fffd}<|end|>", ""]);
}

#[test]
fn sentence_piece_drops_one_space_at_the_start_of_a_text() {
    let tokenizer = build(sentence_piece(&["▁", "h", "▁h", "▁▁"]));
    let (space, h, space_h, two) = (259, 260, 261, 262);
    let got = |ids: &[u32]| pieces(Detokenizer::new(&tokenizer, true), ids);
    assert_eq!(got(&[space_h, space_h]), ["h", " h", ""]);
    assert_eq!(got(&[1, space_h]), ["", "h", ""], "a skipped token does not start the text");
    assert_eq!(got(&[two, h]), [" ", "h", ""]);
    assert_eq!(got(&[space, space_h]), ["", " h", ""], "only one");
    assert_eq!(got(&[3 + 0x20, space_h]), ["", " h", ""], "the byte token too");
    assert_eq!(got(&[3 + 0xC3, 3 + 0xA9, h]), ["", "é", "h", ""]);
    assert_eq!(pieces(Detokenizer::new(&tokenizer, false), &[1, space_h]), ["<s>", " h", ""]);
    assert_eq!(pieces(Detokenizer::continuing(&tokenizer, true), &[space_h, h]), [" h", "h", ""]);
}

#[test]
fn streams_of_random_tokens_equal_whole_decoding() {
    let tokenizers = [bytes_tokenizer(), build(sentence_piece(&["▁", "h", "▁h", "▁▁", "é", "▁é▁"]))];
    let seed = seed();
    let mut random = Random(seed);
    for round in 0..20_000 {
        let tokenizer = random.pick(&tokenizers).clone();
        let skip_special = random.below(2) == 0;
        let chosen: Vec<u32> = (0..random.below(12))
            .map(|_| match random.below(4) {
                // Lead bytes, continuation bytes and spaces, shifted for the second vocabulary or not.
                0 => *random.pick(&[0xC3, 0xE2, 0xF0, 0xF4, 0xC6, 0xE5, 0x20, 0x23]),
                1 => 0x80 + random.below(0x43) as u32,
                _ => random.below(tokenizer.vocab_size() + 2) as u32,
            })
            .collect();
        let streamed = pieces(Detokenizer::new(&tokenizer, skip_special), &chosen).concat();
        assert_eq!(
            streamed,
            tokenizer.decode(&ids(&chosen), skip_special),
            "seed {seed}, round {round}: {chosen:?}"
        );
    }
}

#[test]
fn only_a_possible_stop_string_is_held_back() {
    let mut stop_strings = stop(&["STOP", "\n\n"]);
    assert_eq!(stop_strings.push("a S"), step("a ", None));
    assert_eq!(stop_strings.push("T"), step("", None));
    assert_eq!(stop_strings.push("STO"), step("ST", None));
    assert_eq!(stop_strings.push("x\n"), step("STOx", None));
    assert_eq!(stop_strings.push("b"), step("\nb", None));
    assert_eq!(stop_strings.push("c\n\nd"), step("c", Some(1)));
    assert_eq!(stop_strings.push("more"), step("", Some(1)), "nothing comes after a match");
    assert_eq!(stop_strings.finish(), "");

    let mut stop_strings = stop(&["STOP"]);
    assert_eq!(stop_strings.push("xSTO"), step("x", None));
    assert_eq!(stop_strings.finish(), "STO", "the end of the text sets it free");
}

#[test]
fn the_match_that_ends_first_wins_then_the_longest() {
    assert_eq!(stop(&["abcd", "bc"]).push("xabcd"), step("xa", Some(1)));
    assert_eq!(stop(&["bc", "abc"]).push("xabc"), step("x", Some(1)));
    assert_eq!(stop(&["b", "b"]).push("ab"), step("a", Some(0)));
    assert_eq!(stop(&["", "b"]).push("ab"), step("a", Some(1)), "an empty string never matches");
    assert_eq!(stop(&[]).push("ab"), step("ab", None));
    assert_eq!(stop(&["aab"]).push("aaab"), step("a", Some(0)), "a match may start inside a failed one");
    assert_eq!(stop(&["日本"]).push("今日本"), step("今", Some(0)));
}

/// The same by search in the whole text: where the text ends, and which string ended it.
fn search(text: &str, strings: &[String]) -> (String, Option<usize>) {
    let found =
        strings.iter().enumerate().filter(|(_, string)| !string.is_empty()).filter_map(|(index, string)| {
            let start = text.find(string)?;
            Some((start + string.len(), start, index))
        });
    match found.min() {
        Some((_, start, index)) => (text[..start].to_owned(), Some(index)),
        None => (text.to_owned(), None),
    }
}

#[test]
fn random_streams_stop_where_a_search_of_the_whole_text_does() {
    let tokenizer = bytes_tokenizer();
    let seed = seed();
    let mut random = Random(seed);
    let mut matches = 0;
    for round in 0..20_000 {
        let word = |random: &mut Random, most: usize| -> String {
            (0..random.below(most + 1)).map(|_| *random.pick(&['a', 'b', 'é', '\u{fffd}', '😀'])).collect()
        };
        let strings: Vec<String> = (0..random.below(4)).map(|_| word(&mut random, 4)).collect();
        let text = word(&mut random, 14);
        let mut bytes = text.into_bytes();
        if !bytes.is_empty() && random.below(4) == 0 {
            let position = random.below(bytes.len());
            bytes[position] = random.next() as u8;
        }
        let chosen: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
        let whole = tokenizer.decode(&ids(&chosen), false);

        let mut stop_strings = StopStrings::new(strings.clone());
        let (mut sent, mut matched) = (String::new(), None);
        let mut seen = String::new();
        for piece in pieces(Detokenizer::new(&tokenizer, false), &chosen) {
            seen.push_str(&piece);
            let step = stop_strings.push(&piece);
            sent.push_str(&step.text);
            if step.matched.is_some() {
                matched = step.matched;
                break;
            }
            let held = seen.strip_prefix(&sent).unwrap();
            let longest = (0..=seen.len())
                .filter(|start| seen.is_char_boundary(*start))
                .map(|start| &seen[start..])
                .find(|tail| tail.is_empty() || strings.iter().any(|string| string.starts_with(tail)));
            assert_eq!(Some(held), longest, "seed {seed}, round {round}: {strings:?} in {seen:?}");
        }
        sent.push_str(&stop_strings.finish());
        matches += usize::from(matched.is_some());
        assert_eq!(
            (sent, matched),
            search(&whole, &strings),
            "seed {seed}, round {round}: {strings:?} in {whole:?}"
        );
    }
    assert!((2_000..18_000).contains(&matches), "{matches} matches: the test would be blind");
}
