//! XML as a small tree, for what libvirt prints. Nothing of it is trusted: size and depth are bounded, and entities
//! other than XML's own are refused.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

/// A domain with hundreds of devices has some hundred KiB.
const MOST_BYTES: usize = 8 << 20;
const DEEPEST: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

impl Element {
    pub fn read(xml: &str) -> Result<Element, String> {
        if xml.len() > MOST_BYTES {
            return Err(format!("it is larger than {MOST_BYTES} bytes"));
        }
        let mut reader = Reader::from_str(xml);
        let mut open: Vec<Element> = Vec::new();
        loop {
            let closed = match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => {
                    if open.len() >= DEEPEST {
                        return Err(format!("it is nested deeper than {DEEPEST}"));
                    }
                    open.push(begin(&start)?);
                    None
                }
                Event::Empty(start) => Some(begin(&start)?),
                Event::End(_) => open.pop(),
                Event::Text(text) => {
                    let text = text.decode().map_err(|error| error.to_string())?;
                    add(&mut open, &text);
                    None
                }
                Event::CData(text) => {
                    let text = text.decode().map_err(|error| error.to_string())?;
                    add(&mut open, &text);
                    None
                }
                Event::GeneralRef(name) => {
                    let name = name.decode().map_err(|error| error.to_string())?;
                    let meant = quick_xml::escape::unescape(&format!("&{name};"))
                        .map_err(|error| error.to_string())?
                        .into_owned();
                    add(&mut open, &meant);
                    None
                }
                Event::DocType(_) => return Err("it has a document type".into()),
                Event::Eof => return Err("it ends too early".into()),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
            };
            match (closed, open.last_mut()) {
                (Some(element), Some(parent)) => parent.children.push(element),
                (Some(element), None) => return Ok(element),
                (None, _) => {}
            }
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    pub fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first element at a path such as `os/type`.
    pub fn at(&self, path: &str) -> Option<&Element> {
        let mut parts = path.split('/');
        parts.try_fold(self, |element, name| element.child(name))
    }

    /// An attribute of the element at a path.
    pub fn of(&self, path: &str, attribute: &str) -> Option<&str> {
        self.at(path)?.attribute(attribute)
    }

    pub fn words(&self) -> &str {
        self.text.trim()
    }
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn begin(start: &BytesStart) -> Result<Element, String> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        Ok::<_, String>(text.to_owned())
    };
    let mut element = Element {
        name: text(start.name().as_ref())?,
        ..Element::default()
    };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = text(&attribute.value)?;
        let value = quick_xml::escape::unescape(&value).map_err(|error| error.to_string())?;
        let name = text(attribute.key.as_ref())?;
        element.attributes.push((name, value.into_owned()));
    }
    Ok(element)
}

/// Text as an attribute's value.
pub fn escaped(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_with_its_entities() {
        let xml = "<?xml version='1.0'?><a x='1 &lt; 2'><!-- no --><b>one &amp; two</b><b/></a>";
        let read = Element::read(xml).expect("reads");
        assert_eq!(read.attribute("x"), Some("1 < 2"));
        assert_eq!(read.at("b").map(Element::words), Some("one & two"));
        assert_eq!(read.all("b").count(), 2);
        let name = "a'\"<&>";
        let xml = format!("<a x='{}'/>", escaped(name));
        assert_eq!(
            Element::read(&xml).expect("reads").attribute("x"),
            Some(name)
        );
    }

    #[test]
    fn hostile_words_are_refused() {
        let deep = "<a>".repeat(DEEPEST + 1);
        let entity = "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
        for bad in [
            "",
            "<a>",
            "<a></b>",
            "words",
            "<a>&b;</a>",
            "<a x='&b;'/>",
            entity,
            &deep,
        ] {
            assert!(Element::read(bad).is_err(), "{bad}");
        }
        let good = "<a b='1'><c>x</c></a>";
        for end in 0..good.len() {
            assert!(Element::read(&good[..end]).is_err(), "{end}");
        }
    }
}
