//! Pages for people: no script, nothing loaded from anywhere. What reports have in common.
//!
//! All text of guests, manifests and clouds is hostile here. [`markup::Markup`] escapes it, and a policy in the page forbids
//! what might get past that.

pub mod markup;

use markup::Markup;

const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// From the first byte to the title on the page.
pub fn begin(title: &str) -> Markup {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    let root = [("lang", "en"), ("xmlns", "http://www.w3.org/1999/xhtml")];
    page.open("html", &root)
        .raw("\n<head>\n<meta charset=\"utf-8\"/>\n");
    let policy = [
        ("http-equiv", "Content-Security-Policy"),
        ("content", POLICY),
    ];
    page.empty("meta", &policy);
    page.raw("\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\"/>\n");
    page.raw("<meta name=\"referrer\" content=\"no-referrer\"/>\n");
    page.element("title", &[], title);
    page.raw("<style>\n")
        .raw(include_str!("style.css"))
        .raw("</style>\n");
    page.raw("</head>\n<body>\n<main>\n");
    page.element("h1", &[], title);
    page
}

pub fn end(mut page: Markup) -> String {
    page.raw("</main>\n</body>\n</html>\n");
    page.into_string()
}

/// A table that a narrow screen shows as cards: each row's first cell is its head, and a cell has a class and a text. The roles
/// keep it a table for who listens to it.
pub struct Cards {
    columns: &'static [&'static str],
}

impl Cards {
    pub fn begin(page: &mut Markup, columns: &'static [&'static str]) -> Self {
        page.raw("<table role=\"table\" class=\"glance\">\n<thead role=\"rowgroup\">\n<tr role=\"row\">\n");
        for column in columns {
            page.element("th", &[("scope", "col"), ("role", "columnheader")], column);
        }
        page.raw("</tr>\n</thead>\n<tbody role=\"rowgroup\">\n");
        Cards { columns }
    }

    /// `link`: where the row's head leads, on this page.
    pub fn row(&self, page: &mut Markup, head: &str, link: Option<&str>, cells: &[(&str, String)]) {
        let name = self.columns.first().copied().unwrap_or_default();
        page.raw("<tr role=\"row\">\n");
        page.open(
            "th",
            &[
                ("scope", "row"),
                ("role", "rowheader"),
                ("data-label", name),
            ],
        );
        match link {
            Some(link) => page.element("a", &[("href", link)], head),
            None => page.text(head),
        };
        page.close("th");
        for (column, (class, text)) in self.columns[1..].iter().zip(cells) {
            page.element(
                "td",
                &[("role", "cell"), ("data-label", column), ("class", class)],
                text,
            );
        }
        page.raw("</tr>\n");
    }

    pub fn end(self, page: &mut Markup) {
        page.raw("</tbody>\n</table>\n");
    }
}
