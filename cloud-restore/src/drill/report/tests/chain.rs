use std::collections::BTreeMap;

use super::super::chain::Folder;
use super::super::publish::publish;
use super::*;

type Files = BTreeMap<String, Vec<u8>>;

fn folder(files: &Files) -> Folder {
    let mut folder = Folder::default();
    for (name, bytes) in files {
        folder.add(name, bytes);
    }
    folder
}

fn first_break(files: &Files) -> Option<String> {
    folder(files).first_break()
}

fn add(files: &mut Files, started: &str, change: impl FnOnce(&mut DrillReport)) -> String {
    let before = folder(files);
    let mut report = report(vec![good_vm("dc01")]);
    report.started_at = at(started);
    report.number = before.next_number();
    report.previous = before.newest();
    report.earlier_reports = before.check();
    let shade = report.number as u8;
    pictured(&mut report, 0, screen(shade), files);
    change(&mut report);
    let name = file_name(report.started_at);
    files.insert(name.clone(), report.to_json().expect("JSON"));
    name
}

/// The names of three reports that follow each other; the clock of the second was wrong.
fn three() -> (Files, [String; 3]) {
    let mut files = Files::new();
    let names = [
        "2026-11-01T03:00:00Z",
        "2031-01-01T00:00:00Z",
        "2026-11-03T03:00:00Z",
    ];
    let names = names.map(|at| add(&mut files, at, |_| {}));
    (files, names)
}

fn changed(files: &mut Files, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(files[name].clone()).expect("UTF-8");
    assert!(text.contains(from), "{from}");
    files.insert(name.into(), text.replace(from, to).into_bytes());
}

#[track_caller]
fn breaks(files: &Files, parts: &[&str]) {
    let found = first_break(files).expect("a break");
    for part in parts {
        assert!(found.contains(part), "{part:?} in {found:?}");
    }
}

#[test]
fn a_good_chain_holds() {
    assert_eq!(first_break(&Files::new()), None);
    assert_eq!(Folder::default().next_number(), 1);
    assert_eq!(Folder::default().newest(), None);
    let (mut files, [.., third]) = three();
    files.insert("notes.txt".into(), b"whatever".to_vec());
    files.insert("drill-20261103T030000Z.html".into(), b"<p>".to_vec());
    let all = folder(&files);
    assert_eq!(
        all.check(),
        EarlierReports {
            count: 3,
            first_break: None
        }
    );
    assert_eq!(all.next_number(), 4);
    // The newest by number, not by its name.
    let newest = all.newest().expect("a report");
    assert_eq!(
        (&newest.file, newest.sha256),
        (&third, sha256(&files[&third]))
    );
}

#[test]
fn a_changed_report_is_told() {
    let (mut files, [first, second, _]) = three();
    changed(
        &mut files,
        &first,
        "\"age_seconds\": 2530",
        "\"age_seconds\": 253",
    );
    breaks(
        &files,
        &[
            &format!("{second} (report 2) names {first}"),
            "it was changed after",
        ],
    );
}

#[test]
fn a_report_that_was_taken_out_is_told() {
    let (mut files, [first, second, third]) = three();
    files.remove(&second);
    breaks(
        &files,
        &[&format!(
            "{third} (report 3) names {second}, which is not in the folder"
        )],
    );
    let (mut files, _) = three();
    files.remove(&first);
    breaks(&files, &[&second, &first, "not in the folder"]);
}

#[test]
fn a_report_that_was_slipped_in_is_told() {
    let (files, [first, second, third]) = three();
    let mut alone = files.clone();
    add(&mut alone, "2026-11-02T03:00:00Z", |report| {
        report.number = 2;
        report.previous = None;
    });
    breaks(
        &alone,
        &["drill-20261102T030000Z.json (report 2) names no report before it"],
    );
    let mut beside = files.clone();
    add(&mut beside, "2032-01-01T00:00:00Z", |report| {
        report.number = 2;
        report.previous = Some(FileHash {
            file: first.clone(),
            sha256: sha256(&files[&first]),
        });
    });
    breaks(&beside, &[&first, "which another report follows already"]);
    let mut skipping = files.clone();
    add(&mut skipping, "2026-11-04T03:00:00Z", |report| {
        report.number = 7
    });
    breaks(
        &skipping,
        &["report 7", &format!("names {third}, which is report 3")],
    );
    let mut late = Files::new();
    add(&mut late, "2026-11-04T03:00:00Z", |report| {
        report.number = 2
    });
    breaks(&late, &["and is not the first"]);
    assert!(files.contains_key(&second));
}

#[test]
fn a_report_that_is_none_is_told() {
    let (mut files, [_, second, third]) = three();
    files.insert(second.clone(), b"{\"number\": 2".to_vec());
    breaks(
        &files,
        &[
            &third,
            &format!("names {second}, which is no longer readable"),
        ],
    );
    let (mut files, _) = three();
    files.insert("drill-x.json".into(), b"[]".to_vec());
    breaks(&files, &["drill-x.json is not readable as a report"]);
    assert_eq!(folder(&files).check().count, 4);
}

#[test]
fn pictures_are_told_too() {
    let (mut files, [_, second, _]) = three();
    let picture = screenshot_name(at("2031-01-01T00:00:00Z"), 0, "dc01");
    files.insert(picture.clone(), screen(99));
    breaks(
        &files,
        &[&second, &picture, "it was changed after it was taken"],
    );
    files.remove(&picture);
    breaks(&files, &[&second, &picture, "which is not in the folder"]);
}

#[test]
fn what_is_published_is_a_chain_on_disk() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("reports");
    assert_eq!(
        Folder::read(&path).expect("no folder yet").check(),
        EarlierReports::default()
    );
    for started in ["2026-11-01T03:00:00Z", "2026-11-02T03:00:00Z"] {
        let before = Folder::read(&path).expect("a folder");
        let mut report = report(vec![good_vm("dc01")]);
        report.started_at = at(started);
        report.number = before.next_number();
        report.previous = before.newest();
        let mut pictures = Pictures::new();
        pictured(&mut report, 0, screen(3), &mut pictures);
        let done = publish(&report, &pictures, &path).expect("written");
        let newest = Folder::read(&path)
            .expect("a folder")
            .newest()
            .expect("a report");
        assert_eq!(newest.sha256, done.sha256);
        assert_eq!(
            std::fs::read(&done.json).map(|bytes| sha256(&bytes)).ok(),
            Some(done.sha256)
        );
        assert!(done.html.ends_with(done.json.with_extension("html")));
        let elsewhere = Pictures::from([("../x.png".into(), screen(3))]);
        assert!(publish(&report, &elsewhere, &path).is_err());
        // Nothing is replaced.
        assert!(publish(&report, &pictures, &path).is_err());
    }
    let check = Folder::read(&path).expect("a folder").check();
    assert_eq!(
        check,
        EarlierReports {
            count: 2,
            first_break: None
        }
    );
    let first = path.join("drill-20261101T030000Z.json");
    std::fs::remove_file(&first).expect("removed");
    std::fs::create_dir(&first).expect("made");
    let told = Folder::read(&path).expect("a folder").first_break();
    assert!(told.is_some_and(|why| why.contains("is no file")));
}
