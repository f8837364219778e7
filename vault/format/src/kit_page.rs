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
        .replace("{created}", &escape(&kit.created))
        .replace("{qr}", &svg(&qr))
        .replace("{text}", &escape(&kit.to_qr_text())))
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
<li>Get the program from the vault itself: <code>tools/</code> holds <code>sparesite-restore</code> and <code>SHA256SUMS</code>
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
