//! XHTML as a string that grows. Only what stands in the source is written as it is; all else is escaped.

use std::borrow::Cow;

use crate::drill::report::serial::is_harmful;

type Attributes<'a> = [(&'static str, &'a str)];

#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    /// Takes no text from anywhere but the source.
    pub fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.0.push_str(literal);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escape(text));
        self
    }

    pub fn open(&mut self, tag: &'static str, attributes: &Attributes<'_>) -> &mut Self {
        self.start(tag, attributes).raw(">")
    }

    pub fn close(&mut self, tag: &'static str) -> &mut Self {
        // A line's end after what stands within a sentence would be a space in it.
        let within = matches!(tag, "a" | "code" | "strong");
        self.raw("</")
            .raw(tag)
            .raw(if within { ">" } else { ">\n" })
    }

    /// An element that has no content.
    pub fn empty(&mut self, tag: &'static str, attributes: &Attributes<'_>) -> &mut Self {
        self.start(tag, attributes).raw("/>")
    }

    /// An element around text.
    pub fn element(&mut self, tag: &'static str, of: &Attributes<'_>, text: &str) -> &mut Self {
        self.open(tag, of).text(text).close(tag)
    }

    pub fn into_string(self) -> String {
        self.0
    }

    fn start(&mut self, tag: &'static str, attributes: &Attributes<'_>) -> &mut Self {
        self.raw("<").raw(tag);
        for (name, value) in attributes {
            self.raw(" ").raw(name).raw("=\"").text(value).raw("\"");
        }
        self
    }
}

/// For content and for quoted attributes. What would reorder or hide text is written out.
pub fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| is_harmful(c) || matches!(c, '&' | '<' | '>' | '"' | '\'');
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' => safe.push('\n'),
            '\t' => safe.push(' '),
            c if is_harmful(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_its_element_or_attribute() {
        for (text, safe) in [
            ("web-01 ü", "web-01 ü"),
            ("<script>&\"'", "&lt;script&gt;&amp;&quot;&#39;"),
            ("a\nb\tc", "a\nb c"),
            ("\0\x1b[1m", "\\u{0}\\u{1b}[1m"),
            ("x\u{202e}gpj", "x\\u{202e}gpj"),
            ("\u{ffff}", "\\u{ffff}"),
        ] {
            assert_eq!(escape(text), safe);
        }
        let mut markup = Markup::default();
        markup.element("p", &[("title", "\"><b>")], "</p>");
        let expected = "<p title=\"&quot;&gt;&lt;b&gt;\">&lt;/p&gt;</p>\n";
        assert_eq!(markup.into_string(), expected);
    }
}
