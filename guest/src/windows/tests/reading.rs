//! The reader against hives of all shapes, one that hivex made among them.

use super::hive::{HiveBuilder, Lists, wide};
use crate::windows::registry::Hive;

/// Made by hivex; `tests/fixtures/README.md` says how.
const HIVEX: &[u8] = include_bytes!("../../../tests/fixtures/hivex-system.hive");

fn open(builder: &HiveBuilder) -> Hive {
    Hive::open("test", builder.build(), &[]).unwrap()
}

#[test]
fn finds_keys_in_every_kind_of_list() {
    for lists in [Lists::Li, Lists::Lf, Lists::Lh, Lists::Ri] {
        let builder = HiveBuilder::default().lists(lists);
        let builder = (0..7).fold(builder, |builder, number| {
            builder.number(
                &format!("Services\\service{number}\\Below"),
                "Start",
                number,
            )
        });
        let hive = open(&builder);
        for number in 0..7 {
            let path = format!("SERVICES\\Service{number}\\below");
            let value = hive.value(&path, "START").unwrap().unwrap();
            assert_eq!(value.number().unwrap(), Some(number), "{lists:?} {path}");
        }
        assert!(hive.key(r"Services\service7").unwrap().is_none());
        let names: Vec<String> = hive
            .key("Services")
            .unwrap()
            .unwrap()
            .subkeys()
            .unwrap()
            .iter()
            .map(|key| key.name())
            .collect();
        assert_eq!(names.len(), 7, "{lists:?} {names:?}");
        assert_eq!(names[6], "service6");
    }
}

#[test]
fn reads_values_of_every_size() {
    for length in [
        0,
        1,
        3,
        4,
        5,
        16_344,
        16_345,
        16_344 * 2,
        16_344 * 2 + 1,
        100_000,
    ] {
        let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let hive = open(&HiveBuilder::default().data("Key", "Data", 3, &data));
        let value = hive.value("Key", "Data").unwrap().unwrap();
        assert_eq!(value.size(), length);
        assert_eq!(&value.data().unwrap()[..], &data[..], "{length} bytes");
    }
}

#[test]
fn a_value_above_the_limit_is_refused_and_its_size_told() {
    let data = vec![1; (1 << 20) + 1];
    let hive = open(&HiveBuilder::default().data("Key", "Data", 7, &data));
    let value = hive.value("Key", "Data").unwrap().unwrap();
    assert_eq!(value.size(), data.len());
    let error = value.texts().unwrap_err().to_string();
    assert_eq!(
        error,
        "value Data of test has 1048577 bytes, and at most 1048576 are read"
    );
}

#[test]
fn strings_end_somewhere() {
    let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let hive = open(
        &HiveBuilder::default()
            .text("Key", "Long", &"ä".repeat(5000))
            .texts("Key", "Many", &many),
    );
    let value = |name: &str| hive.value("Key", name).unwrap().unwrap();
    assert_eq!(value("Long").text().unwrap().unwrap(), "ä".repeat(4096));
    assert_eq!(value("Many").texts().unwrap().len(), 256);
}

#[test]
fn kinds_are_kept_apart() {
    let hive = open(
        &HiveBuilder::default()
            .text("Key", "Text", "Größe")
            .texts("Key", "Texts", &["a", "b"])
            .number("Key", "Number", 5)
            .data("Key", "Odd", 1, &[b'x', 0, b'y'])
            .data("Key", "Half", 1, &wide("no end"))
            .number("Ключ", "Number", 6),
    );
    let value = |name: &str| hive.value("Key", name).unwrap().unwrap();
    assert_eq!(value("Text").text().unwrap().as_deref(), Some("Größe"));
    assert_eq!(value("Text").number().unwrap(), None);
    assert_eq!(value("Texts").texts().unwrap(), ["a", "b"]);
    assert_eq!(value("Texts").text().unwrap(), None);
    assert_eq!(value("Number").number().unwrap(), Some(5));
    assert_eq!(value("Odd").text().unwrap().as_deref(), Some("x"));
    assert_eq!(value("Half").text().unwrap().as_deref(), Some("no end"));
    let wide_name = hive.value("КЛЮЧ", "Number").unwrap().unwrap();
    assert_eq!(wide_name.number().unwrap(), Some(6));
}

#[test]
fn reads_what_hivex_made() {
    let hive = Hive::open("fixture", HIVEX.to_vec(), &[]).unwrap();
    let services = r"ControlSet001\Services";
    let number = |path: &str, name: &str| hive.value(path, name).unwrap().unwrap().number();
    assert_eq!(number("Select", "Current").unwrap(), Some(1));
    assert_eq!(
        number(&format!("{services}\\stornvme"), "Start").unwrap(),
        Some(0)
    );
    assert_eq!(
        number(&format!("{services}\\stornvme\\StartOverride"), "0").unwrap(),
        Some(3)
    );
    let path = hive
        .value(&format!("{services}\\stornvme"), "ImagePath")
        .unwrap()
        .unwrap();
    assert_eq!(
        path.text().unwrap().as_deref(),
        Some(r"System32\drivers\stornvme.sys")
    );
    let name = hive.value(
        r"ControlSet001\Control\ComputerName\ComputerName",
        "ComputerName",
    );
    assert_eq!(
        name.unwrap().unwrap().text().unwrap().as_deref(),
        Some("FILES01")
    );
    let interfaces = format!("{services}\\Tcpip\\Parameters\\Interfaces");
    let interfaces = hive.key(&interfaces).unwrap().unwrap().subkeys().unwrap();
    let addresses: Vec<_> = interfaces
        .iter()
        .flat_map(|key| key.value("IPAddress").unwrap().unwrap().texts().unwrap())
        .collect();
    assert_eq!(addresses, ["192.168.10.5", "192.168.10.6"]);
    assert!(!hive.flush().unflushed);
}

#[test]
fn what_is_no_hive_says_so() {
    for file in [&b""[..], b"regf", &[0; 8192]] {
        let error = Hive::open("x", file.to_vec(), &[])
            .err()
            .unwrap()
            .to_string();
        assert_eq!(error, "x is damaged: it does not begin with regf");
    }
    let mut file = HiveBuilder::default().key("Key").build();
    file.truncate(4096);
    let error = Hive::open("x", file, &[]).err().unwrap().to_string();
    assert!(error.contains("a cell lies behind the end"), "{error}");
}
