//! The recovery kit on paper: one page, one QR code, what to do first. HTML, because every machine prints it.

use crate::FormatError;
use crate::kit::Kit;
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;

/// The page; `notes` is what only the moment of making knows (such as where the passphrase is kept).
pub fn kit_page(kit: &Kit) -> Result<String, FormatError> {
    let qr = QrCode::encode_text(&kit.to_qr_text(), QrCodeEcc::Medium).map_err(|_| {
        FormatError::damaged("the kit is too long for a QR code: shorten the vault's URL")
    })?;
    let region = kit
        .region
        .as_deref()
        .map(|r| format!("<dt>Region</dt><dd>{}</dd>", escape(r)))
        .unwrap_or_default();
    Ok(PAGE
        .replace("{url}", &escape(&kit.vault_url))
        .replace("{region}", &region)
        .replace("{vault}", &group(&kit.vault_id.to_string()))
        .replace("{created}", &escape(&to_the_minute(&kit.created)))
        .replace("{qr}", &svg(&qr))
        .replace("{text}", &escape(&kit.to_qr_text())))
}

/// `2026-11-22T13:23:07.27Z` as people write it.
fn to_the_minute(time: &str) -> String {
    match (time.get(..10), time.get(10..11), time.get(11..16)) {
        (Some(date), Some("T"), Some(minute)) if time.ends_with('Z') => {
            format!("{date}, {minute} UTC")
        }
        _ => time.to_owned(),
    }
}

const PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sparesite recovery kit</title>
<style>
@page { size: A4; margin: 14mm }
body { font: 11pt/1.4 sans-serif; max-width: 180mm; margin: 0 auto; color: #000; background: #fff }
h1 { font-size: 20pt; margin: 0 0 1mm } h2 { font-size: 12pt; margin: 4mm 0 1mm }
p, ol { margin: 1mm 0 } li { margin: .8mm 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1mm 5mm; margin: 2mm 0 } dt { font-weight: bold }
dd { margin: 0; overflow-wrap: anywhere; font-family: monospace }
.top { display: grid; grid-template-columns: 1fr 78mm; gap: 6mm; align-items: start } svg { width: 78mm; height: 78mm }
code { font-family: monospace; overflow-wrap: anywhere } .key { font: 7pt/1.3 monospace; overflow-wrap: anywhere; border: .3mm solid #000; padding: 1.5mm }
.line { border-bottom: .3mm solid #000; height: 8mm }
</style></head><body>
<h1>Sparesite recovery kit</h1>
<p>With this page, its passphrase and an internet line, the machines can be brought back. Keep it away from the site, and the
passphrase away from it.</p>
<div class="top"><div>
<dl><dt>Vault</dt><dd>{url}</dd>{region}<dt>Vault id</dt><dd>{vault}</dd><dt>Made</dt><dd>{created}</dd></dl>
<h2>The passphrase is kept</h2><div class="line"></div>
<h2>Whoever has access to the cloud account</h2><div class="line"></div>
</div>{qr}</div>
<h2>What to do first</h2>
<ol>
<li>Do not switch the old site's machines on again before you know what is running where.</li>
<li>Take any 64-bit Linux machine, best in the vault's region. Get read access to the vault named above.</li>
<li>Get the program from the vault itself: <code>tools/</code> holds <code>sparesite-restore-x86_64-linux</code> and <code>SHA256SUMS</code>
(check it: <code>sha256sum -c SHA256SUMS</code>), and <code>vault-format.md</code>, which says how to do without it.</li>
<li>Use the kit's file, or scan the QR code and save its text as <code>kit.json</code>.</li>
<li>See what there is: <code>sparesite-restore points --kit kit.json</code></li>
<li>Build a disk: <code>sparesite-restore assemble VM --kit kit.json --output disk.img</code></li>
</ol>
<h2>The kit as text, if the code cannot be scanned</h2>
<div class="key">{text}</div>
</body></html>
"#;

fn svg(qr: &QrCode) -> String {
    let size = qr.size();
    let mut path = String::new();
    for y in 0..size {
        for x in (0..size).filter(|x| qr.get_module(*x, y)) {
            let _ = write!(path, "M{},{}h1v1h-1z", x + 4, y + 4);
        }
    }
    let side = size + 8;
    format!(
        r##"<svg viewBox="0 0 {side} {side}" shape-rendering="crispEdges" role="img" aria-label="recovery kit as a QR code"><rect width="{side}" height="{side}" fill="#fff"/><path d="{path}" fill="#000"/></svg>"##
    )
}

fn group(hex: &str) -> String {
    let fours: Vec<&str> = hex
        .as_bytes()
        .chunks(8)
        .filter_map(|c| std::str::from_utf8(c).ok())
        .collect();
    fours.join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::tests::kit;

    /// What a scanner sees of the page's code: `scale` pixels for each module.
    fn scanned(page: &str, scale: usize) -> String {
        let (_, rest) = page.split_once(r#"viewBox="0 0 "#).unwrap();
        let side: usize = rest.split(' ').next().unwrap().parse().unwrap();
        let (_, rest) = rest.split_once(r#"<path d=""#).unwrap();
        let (path, _) = rest.split_once('"').unwrap();
        let mut dark = vec![false; side * side];
        for module in path.split('M').skip(1) {
            let (x, rest) = module.split_once(',').unwrap();
            let y = rest.strip_suffix("h1v1h-1z").unwrap();
            dark[y.parse::<usize>().unwrap() * side + x.parse::<usize>().unwrap()] = true;
        }
        let pixel = |x: usize, y: usize| match dark[y / scale * side + x / scale] {
            true => 0,
            false => 255,
        };
        let pixels = side * scale;
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(pixels, pixels, pixel);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn the_printed_code_is_a_kit_that_opens() {
        let page = kit_page(&kit()).unwrap();
        let scanned = scanned(&page, 4);
        assert_eq!(scanned, kit().to_qr_text());
        Kit::parse(scanned.as_bytes())
            .unwrap()
            .open("six words")
            .unwrap();
        for shown in ["s3://bucket/site", "eu-central-1", "2026-01-01, 00:00 UTC"] {
            assert!(page.contains(shown), "{shown}");
        }
    }

    #[test]
    fn what_a_kit_says_is_text_on_its_page() {
        let mut kit = kit();
        kit.vault_url = "s3://<script>alert(1)</script>".into();
        kit.created = "Ünknown".into();
        let page = kit_page(&kit).unwrap();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(page.contains("<dd>Ünknown</dd>"));
    }
}
