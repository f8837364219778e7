use super::*;

const GIB: u64 = 1 << 30;
const QCOW2: DiskNow<'_> = DiskNow {
    size_bytes: GIB,
    driver: "qcow2",
};

fn mark() -> Mark {
    Mark::of(&WriterId([0xab; 16]))
}

fn capture(number: u8) -> CaptureId {
    CaptureId([number; 16])
}

fn trusted(numbers: &[u8]) -> Vec<Trusted> {
    let trust = |number: &u8| Trusted {
        capture: capture(*number),
        disk_bytes: GIB,
    };
    numbers.iter().map(trust).collect()
}

fn good(number: u8) -> Bitmap {
    Bitmap {
        name: mark().bitmap(&capture(number)),
        recording: true,
        busy: false,
        persistent: true,
        inconsistent: false,
        granularity: 4096,
        count: 8192,
    }
}

fn since(bitmaps: &[Bitmap], newest_first: &[u8]) -> Result<u8, NoDelta> {
    let position = plan(&mark(), QCOW2, bitmaps, &trusted(newest_first));
    position.delta.map(|delta| delta.since.0[0])
}

#[test]
fn names_are_ours_alone_and_fit() {
    let name = mark().bitmap(&capture(1));
    assert_eq!(name, format!("sparesite-abababab-{}", "01".repeat(16)));
    assert_eq!(mark().capture(&name), Some(capture(1)));
    assert_eq!(Mark::of(&WriterId([0xcd; 16])).capture(&name), None);
    for stranger in [
        "",
        "sparesite-abababab-",
        "sparesite-abababab-temp-01",
        "bitmap0",
    ] {
        assert_eq!(mark().capture(stranger), None, "{stranger}");
    }
    // QEMU's longest node name.
    assert!(mark().node("scratch99999").len() <= 31);
}

#[test]
fn the_newest_trusted_bitmap_gives_the_delta() {
    let all = [good(1), good(2), good(3)];
    assert_eq!(since(&all, &[3, 2, 1]), Ok(3));
    assert_eq!(since(&all, &[2, 1]), Ok(2));
    assert_eq!(since(&all, &[1]), Ok(1));
    // The newest one is not there: the disk may be an older copy, whose bitmap knows nothing of what came between.
    for there in [&all[..1], &all[..2]] {
        let gone = since(there, &[3, 2, 1]);
        assert!(matches!(gone, Err(NoDelta::NoBitmap { .. })), "{gone:?}");
    }
}

#[test]
fn one_that_cannot_be_used_leaves_it_to_an_older_one_or_says_why() {
    let name = mark().bitmap(&capture(2));
    let broken = [
        (
            Bitmap {
                inconsistent: true,
                ..good(2)
            },
            NoDelta::Inconsistent(name.clone()),
        ),
        (
            Bitmap {
                recording: false,
                ..good(2)
            },
            NoDelta::Stopped(name.clone()),
        ),
        (
            Bitmap {
                busy: true,
                ..good(2)
            },
            NoDelta::Busy(name),
        ),
    ];
    for (bitmap, why) in broken {
        assert_eq!(
            since(std::slice::from_ref(&bitmap), &[2, 1]),
            Err(why.clone())
        );
        assert_eq!(since(&[bitmap.clone(), good(1)], &[2, 1]), Ok(1), "{why}");
        let both = [
            bitmap,
            Bitmap {
                recording: false,
                ..good(1)
            },
        ];
        assert_eq!(since(&both, &[2, 1]), Err(why), "the newest one's reason");
    }
}

#[test]
fn nothing_trusted_nothing_used() {
    assert_eq!(since(&[good(1)], &[]), Err(NoDelta::NothingTrusted));
    let others = since(&[good(1)], &[2]).expect_err("1 is not trusted");
    assert!(
        others
            .to_string()
            .contains("none of a capture that is queued")
    );
    let gone = |driver| {
        let now = DiskNow { driver, ..QCOW2 };
        let position = plan(&mark(), now, &[], &trusted(&[2]));
        position.delta.expect_err("no bitmap").to_string()
    };
    assert!(gone("raw").contains("its raw disk keeps no bitmap over a stop"));
    assert!(gone("qcow2").contains("QEMU did not end in order"));
    // Another gateway's bitmap is none of ours.
    let theirs = Bitmap {
        name: Mark::of(&WriterId([1; 16])).bitmap(&capture(2)),
        ..good(2)
    };
    let position = plan(&mark(), QCOW2, &[theirs], &trusted(&[2]));
    assert!(matches!(
        position.delta,
        Err(NoDelta::NoBitmap {
            writer_has_others: false,
            ..
        })
    ));
    assert_eq!(position.remove, Vec::<String>::new());
}

#[test]
fn a_size_that_changed_is_not_bridged_by_a_bitmap() {
    let mut then = trusted(&[2, 1]);
    then[0].disk_bytes = GIB / 2;
    let both = [good(1), good(2)];
    let position = plan(&mark(), QCOW2, &both, &then[..1]);
    let resized = NoDelta::Resized {
        then: GIB / 2,
        now: GIB,
    };
    assert_eq!(position.delta, Err(resized));
    // It had been that size before.
    let position = plan(&mark(), QCOW2, &both, &then);
    assert_eq!(position.delta.expect("a delta").since, capture(1));
}

#[test]
fn what_is_of_no_use_is_removed_and_nothing_else() {
    let theirs = Bitmap {
        name: "a-backup-program".into(),
        ..good(9)
    };
    let stale_copy = Bitmap {
        name: format!("{}temp-x", mark().prefix()),
        recording: false,
        ..good(9)
    };
    let broken = Bitmap {
        inconsistent: true,
        ..good(2)
    };
    let held = Bitmap {
        busy: true,
        ..good(8)
    };
    let all = [
        good(1),
        broken.clone(),
        good(3),
        theirs,
        stale_copy.clone(),
        held,
        good(7),
    ];
    let position = plan(&mark(), QCOW2, &all, &trusted(&[3, 2, 1]));
    assert_eq!(
        position.remove,
        [broken.name, stale_copy.name, good(7).name]
    );
}

#[test]
fn of_too_many_the_newest_stay_and_that_of_the_published_point() {
    let all: Vec<Bitmap> = (1..=6).map(good).collect();
    let keep: Vec<CaptureId> = (1..=6).rev().map(capture).collect();
    let removed = surplus(&mark(), &all, &keep);
    assert_eq!(removed, [good(2).name, good(3).name]);
    assert_eq!(
        surplus(&mark(), &all[2..], &keep[..4]),
        Vec::<String>::new()
    );
    assert_eq!(surplus(&mark(), &all, &[]).len(), 6);
}
