//! EC2 answers in XML: read into a tree, and asked by name.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deeper than any answer of EC2.
const MOST_DEPTH: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// Reads a document, and returns its root.
    pub fn parse(bytes: &[u8]) -> Result<Element, String> {
        let mut reader = Reader::from_reader(bytes);
        reader.config_mut().trim_text(true);
        let mut open = vec![Element::default()];
        let mut buffer = Vec::new();
        loop {
            let read = reader.read_event_into(&mut buffer);
            match read.map_err(|error| format!("the answer is no XML: {error}"))? {
                Event::Start(start) => {
                    if open.len() > MOST_DEPTH {
                        return Err("the answer is XML that is nested too deeply".into());
                    }
                    open.push(named(start.local_name().as_ref()));
                }
                Event::Empty(start) => {
                    let element = named(start.local_name().as_ref());
                    last(&mut open).children.push(element);
                }
                Event::Text(text) => {
                    let text = text.decode().map_err(|error| error.to_string())?;
                    last(&mut open).text.push_str(&text);
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|error| error.to_string())?;
                    let plain = match reference.resolve_char_ref() {
                        Ok(Some(plain)) => plain.to_string(),
                        _ => quick_xml::escape::resolve_predefined_entity(&name)
                            .unwrap_or_default()
                            .to_owned(),
                    };
                    last(&mut open).text.push_str(&plain);
                }
                Event::End(_) => {
                    let ended = open.pop().unwrap_or_default();
                    match open.last_mut() {
                        Some(parent) => parent.children.push(ended),
                        None => return Err("the answer is XML that ends twice".into()),
                    }
                }
                Event::Eof => break,
                _ => {}
            }
            buffer.clear();
        }
        match (open.len(), open.pop()) {
            (1, Some(mut root)) if root.children.len() == 1 => Ok(root.children.remove(0)),
            _ => Err("the answer is XML that ends too early".into()),
        }
    }

    /// The first of these children, one below the other.
    pub fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| {
            element.children.iter().find(|child| child.name == *name)
        })
    }

    /// Text of what is there; empty otherwise.
    pub fn text_at(&self, path: &[&str]) -> &str {
        self.at(path).map_or("", |element| &element.text)
    }

    /// The items of a list, as EC2 writes them.
    pub fn items<'a>(&'a self, list: &'a [&'a str]) -> impl Iterator<Item = &'a Element> {
        let found = self.at(list).into_iter();
        found.flat_map(|list| list.children.iter().filter(|child| child.name == "item"))
    }
}

fn named(name: &[u8]) -> Element {
    Element {
        name: String::from_utf8_lossy(name).into_owned(),
        ..Element::default()
    }
}

/// What is open at least: what stands around the document.
fn last(open: &mut [Element]) -> &mut Element {
    let end = open.len() - 1;
    &mut open[end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tree_is_asked_by_name() {
        let text = br#"<?xml version="1.0"?><R xmlns="x"><s><item><id>a&amp;b&#33;</id></item><other/><item/></s></R>"#;
        let root = Element::parse(text).unwrap();
        assert_eq!(root.name, "R");
        assert_eq!(root.items(&["s"]).count(), 2);
        assert_eq!(root.text_at(&["s", "item", "id"]), "a&b!");
        assert_eq!(root.text_at(&["t"]), "");
    }

    #[test]
    fn what_is_no_whole_document_is_an_error() {
        let deep = "<a>".repeat(100_000);
        for text in ["", "x", "<a>", "<a></b>", "<a/><b/>", &deep] {
            assert!(
                Element::parse(text.as_bytes()).is_err(),
                "{}",
                &text[..text.len().min(9)]
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_tree(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Element::parse(&bytes);
        }
    }
}
