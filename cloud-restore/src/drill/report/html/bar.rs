//! A measurement against its target, drawn. The figures stand beside it as text; the drawing only repeats them.

use super::words::{against, short};
use crate::page::markup::Markup;

const WIDTH: f64 = 1000.0;

pub struct Bar<'a> {
    pub name: &'a str,
    pub measured: u64,
    pub target: u64,
}

impl Bar<'_> {
    /// The bar is the measurement, the upright line the target; what is beyond it is drawn higher, not only in another
    /// colour.
    pub fn draw(&self, page: &mut Markup) {
        let scale = WIDTH / (self.measured.max(self.target).max(1) as f64 * 1.08);
        let target = self.target as f64 * scale;
        let measured = self.measured as f64 * scale;
        let within = measured.min(target);
        let text = against(
            &short(self.measured),
            Some(self.target),
            Some(self.measured <= self.target),
        );
        page.open("div", &[("class", "bar")]).raw("\n");
        page.open("p", &[])
            .element("strong", &[], self.name)
            .text(" ")
            .text(&text)
            .close("p");
        let label = format!("{}: {text}", self.name);
        page.open(
            "svg",
            &[
                ("xmlns", "http://www.w3.org/2000/svg"),
                ("viewBox", "0 0 1000 24"),
                ("preserveAspectRatio", "none"),
                ("role", "img"),
                ("aria-label", &label),
            ],
        );
        rectangle(page, "track", 0.0, 6, WIDTH, 12);
        rectangle(page, "within", 0.0, 6, within, 12);
        if measured > target {
            rectangle(page, "over", target, 2, measured - target, 20);
        }
        rectangle(page, "target", target - 2.0, 0, 5.0, 24);
        page.close("svg").close("div");
    }
}

fn rectangle(page: &mut Markup, class: &str, x: f64, y: u32, width: f64, height: u32) {
    page.empty(
        "rect",
        &[
            ("class", class),
            ("x", &format!("{x:.1}")),
            ("y", &y.to_string()),
            ("width", &format!("{width:.1}")),
            ("height", &height.to_string()),
        ],
    );
}
