//! LVM2's text metadata: `name { key = value … }`, numbers, strings, lists, comments.

use std::collections::BTreeMap;

/// Sections lie at most six deep in real metadata.
const MAX_DEPTH: usize = 16;

/// What stands behind a key.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Section(Section),
}

/// A section's keys, in the order of their names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Section(BTreeMap<String, Value>);

impl Section {
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, key: &str) -> Option<&[Value]> {
        match self.0.get(key) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    pub(super) fn section(&self, key: &str) -> Option<&Section> {
        match self.0.get(key) {
            Some(Value::Section(section)) => Some(section),
            _ => None,
        }
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }
}

/// `Err` tells what was met and at which byte.
pub(super) fn parse(text: &str) -> Result<Section, String> {
    let mut parser = Parser {
        text: text.as_bytes(),
        at: 0,
    };
    let section = parser.section(0)?;
    match parser.peek() {
        None => Ok(section),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// The next byte that is neither space nor comment; a NUL ends the text.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b'#') => {
                    while !matches!(self.text.get(self.at), None | Some(b'\n')) {
                        self.at += 1;
                    }
                }
                Some(byte) if byte.is_ascii_whitespace() => self.at += 1,
                Some(0) | None => return None,
                Some(byte) => return Some(*byte),
            }
        }
    }

    fn unexpected(&self) -> String {
        match self.text.get(self.at) {
            Some(byte) => format!("{:?} at byte {}", char::from(*byte), self.at),
            None => format!("the end at byte {}", self.at),
        }
    }

    fn word(&mut self) -> Result<String, String> {
        self.peek();
        let start = self.at;
        while self.text.get(self.at).is_some_and(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/')
        }) {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        if word.is_empty() {
            return Err(self.unexpected());
        }
        Ok(String::from_utf8_lossy(word).into_owned())
    }

    /// Keys up to a closing brace, which is left to the caller, or the end.
    fn section(&mut self, depth: usize) -> Result<Section, String> {
        if depth > MAX_DEPTH {
            return Err(format!("sections deeper than {MAX_DEPTH}"));
        }
        let mut keys = BTreeMap::new();
        while !matches!(self.peek(), None | Some(b'}')) {
            let key = self.word()?;
            let value = match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    self.value(depth)?
                }
                Some(b'{') => {
                    self.at += 1;
                    let section = self.section(depth + 1)?;
                    self.expect(b'}')?;
                    Value::Section(section)
                }
                _ => return Err(self.unexpected()),
            };
            keys.insert(key, value);
        }
        Ok(Section(keys))
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("lists deeper than {MAX_DEPTH}"));
        }
        match self.peek() {
            Some(b'"') => self.quoted().map(Value::Text),
            Some(b'[') => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek() != Some(b']') {
                    list.push(self.value(depth + 1)?);
                    if self.peek() == Some(b',') {
                        self.at += 1;
                    } else if self.peek() != Some(b']') {
                        return Err(self.unexpected());
                    }
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            _ => {
                let word = self.word()?;
                // Negative numbers and fractions stand behind keys that nobody reads here.
                Ok(word.parse().map_or(Value::Text(word), Value::Number))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    bytes.extend(self.text.get(self.at));
                }
                Some(byte) => bytes.push(*byte),
                None => return Err(self.unexpected()),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn metadata_is_read_with_comments_lists_and_sections() {
        let parsed = parse(
            "vg0 {\n# a comment }\nid = \"a\\\"b\"\nseqno = 3\nstatus = [\"READ\", \"WRITE\"]\nempty = []\n\
             lv { s1 { stripes = [\n\"pv0\", 0\n] } }\n}\ncontents = \"Text\" # end\n",
        )
        .unwrap();
        assert_eq!(parsed.text("contents"), Some("Text"));
        let group = parsed.section("vg0").unwrap();
        assert_eq!(group.text("id"), Some("a\"b"));
        assert_eq!(group.number("seqno"), Some(3));
        assert_eq!(group.list("status").unwrap().len(), 2);
        assert_eq!(group.list("empty"), Some(&[][..]));
        let stripes = group.section("lv").unwrap().section("s1").unwrap();
        assert_eq!(
            stripes.list("stripes"),
            Some(&[Value::Text("pv0".into()), Value::Number(0)][..])
        );
    }

    #[test]
    fn what_is_no_metadata_is_an_error() {
        for text in [
            "a", "a {", "a = [1", "a = \"x", "} a = 1", "a = = 1", "é = 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"a {".repeat(100_000)).is_err());
        assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c{}\\[\\]=,\"\\\\# \n0-9]{0,200}") {
            let _ = parse(&text);
        }
    }
}
