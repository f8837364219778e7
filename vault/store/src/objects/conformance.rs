//! What every store must do, the one in memory included: one suite for all of them.
//!
//! Panics with the case's name at the first difference. Uses names below `suite`, so a vault
//! may hold other objects.

use bytes::Bytes;
use futures::future::join_all;

use super::{Created, ObjectError, Objects};

/// More than a page of 1000 (S3) when asked for; a quick run takes fewer.
pub struct Suite {
    pub listed_objects: usize,
    pub big_bytes: usize,
}

impl Default for Suite {
    fn default() -> Self {
        Self {
            listed_objects: 1010,
            big_bytes: 20 << 20,
        }
    }
}

/// Runs every case with the default sizes.
pub async fn run(objects: &dyn Objects) {
    run_sized(objects, &Suite::default()).await;
}

pub async fn run_sized(objects: &dyn Objects, suite: &Suite) {
    create_then_exists(objects).await;
    racing_creates(objects).await;
    ranges(objects).await;
    missing_objects(objects).await;
    empty_object(objects).await;
    listing_is_by_segments(objects).await;
    bad_names(objects).await;
    big_object(objects, suite.big_bytes).await;
    many_objects(objects, suite.listed_objects).await;
    let skew = jiff::Timestamp::now().duration_since(objects.store_time().expect("store time"));
    assert!(skew.abs().as_secs() < 60, "store time is {skew:?} away");
}

async fn create_then_exists(objects: &dyn Objects) {
    let create = async |bytes: &'static [u8]| {
        let created = objects.create("suite/once", Bytes::from_static(bytes));
        created.await.expect("create")
    };
    assert_eq!(create(b"first").await, Created::New);
    assert_eq!(create(b"first").await, Created::Exists, "same bytes");
    assert_eq!(create(b"second").await, Created::Exists, "other bytes");
    let read = objects.get("suite/once").await.expect("get");
    assert_eq!(&read[..], b"first", "the first create stays");
}

async fn racing_creates(objects: &dyn Objects) {
    let creates = (0..32u8).map(|racer| async move {
        let bytes = Bytes::from(vec![racer; 4096]);
        objects.create("suite/race", bytes).await.expect("create")
    });
    let results = join_all(creates).await;
    let won = |created: &Created| *created == Created::New;
    assert_eq!(results.iter().filter(|c| won(c)).count(), 1, "winners");
    let winner = results.iter().position(won).expect("a winner") as u8;
    let read = objects.get("suite/race").await.expect("get");
    assert_eq!(read, vec![winner; 4096], "the winner's bytes are there");
}

async fn ranges(objects: &dyn Objects) {
    let name = "suite/ranges/a.bin";
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    let created = objects.create(name, bytes.clone().into()).await;
    assert_eq!(created.expect("create"), Created::New);
    for range in [0..1, 0..10_000, 9_999..10_000, 17..4_113] {
        let read = objects.get_range(name, range.clone()).await.expect("range");
        let expected = &bytes[range.start as usize..range.end as usize];
        assert_eq!(&read[..], expected, "{range:?}");
    }
    let empty = objects.get_range(name, 5..5).await.expect("empty range");
    assert!(empty.is_empty());
    for (range, length) in [(9_999..10_001, 2), (10_000..10_004, 4), (20_000..20_001, 1)] {
        match objects.get_range(name, range.clone()).await {
            Err(ObjectError::Truncated { expected, .. }) => assert_eq!(expected, length),
            other => panic!("range {range:?} past the end: {other:?}"),
        }
    }
    assert_eq!(objects.size(name).await.expect("size"), Some(10_000));
}

async fn missing_objects(objects: &dyn Objects) {
    let name = "suite/missing/x";
    for read in [objects.get(name).await, objects.get_range(name, 0..4).await] {
        match read {
            Err(ObjectError::NotFound { name, store }) => {
                assert_eq!(name, "suite/missing/x");
                assert_eq!(store, objects.describe());
            }
            other => panic!("missing object: {other:?}"),
        }
    }
    assert_eq!(objects.size(name).await.expect("size"), None);
    let listed = objects.list("suite/missing").await.expect("list");
    assert_eq!(listed, []);
}

async fn empty_object(objects: &dyn Objects) {
    let name = "suite/empty";
    let created = objects.create(name, Bytes::new()).await.expect("create");
    assert_eq!(created, Created::New);
    assert_eq!(objects.size(name).await.expect("size"), Some(0));
    assert_eq!(objects.get(name).await.expect("get"), Bytes::new());
    let again = objects.create(name, Bytes::new()).await.expect("create");
    assert_eq!(again, Created::Exists);
}

async fn listing_is_by_segments(objects: &dyn Objects) {
    for name in ["suite/seg/a/1", "suite/seg/ab/1", "suite/seg/a/b/2"] {
        let created = objects.create(name, Bytes::from(name)).await;
        assert_eq!(created.expect("create"), Created::New);
    }
    for prefix in ["suite/seg/a", "suite/seg/a/"] {
        let listed = objects.list(prefix).await.expect("list");
        let names: Vec<_> = listed.iter().map(|l| (l.name.as_str(), l.size)).collect();
        assert_eq!(names, [("suite/seg/a/1", 13), ("suite/seg/a/b/2", 15)]);
    }
    let whole = objects.list("").await.expect("list of everything");
    assert!(whole.iter().any(|l| l.name == "suite/seg/ab/1"));
    assert!(whole.is_sorted_by(|a, b| a.name < b.name), "sorted");
}

async fn bad_names(objects: &dyn Objects) {
    for name in [
        "",
        "../suite/once",
        "suite//once",
        "suite/once/",
        "suite/a#1",
    ] {
        let refused = objects.create(name, Bytes::new()).await;
        assert!(
            matches!(refused, Err(ObjectError::BadName { .. })),
            "{name:?}: {refused:?}"
        );
    }
}

async fn big_object(objects: &dyn Objects, size: usize) {
    let name = "suite/big";
    // Not compressible and different at every offset.
    let mut state = 7u64;
    let words = std::iter::repeat_with(|| {
        state = super::splitmix::mix(state);
        state.to_le_bytes()
    });
    let bytes = Bytes::from(words.take(size / 8).flatten().collect::<Vec<u8>>());
    let created = objects.create(name, bytes.clone()).await.expect("create");
    assert_eq!(created, Created::New);
    assert!(objects.get(name).await.expect("get") == bytes, "big object");
    let middle = (size as u64 / 2)..(size as u64 / 2 + 65_536);
    let read = objects
        .get_range(name, middle.clone())
        .await
        .expect("range");
    assert!(read == bytes.slice(middle.start as usize..middle.end as usize));
}

async fn many_objects(objects: &dyn Objects, count: usize) {
    let names: Vec<_> = (0..count).map(|i| format!("suite/many/{i:06}")).collect();
    for some in names.chunks(32) {
        let creates = some
            .iter()
            .map(|name| objects.create(name, Bytes::from_static(b"x")));
        for created in join_all(creates).await {
            assert_eq!(created.expect("create"), Created::New);
        }
    }
    let listed = objects.list("suite/many").await.expect("list");
    let now = jiff::Timestamp::now();
    for object in &listed {
        assert_eq!(object.size, 1, "{}", object.name);
        let age = now.duration_since(object.store_time).as_secs();
        assert!((-60..3600).contains(&age), "{} is {age} s old", object.name);
    }
    let listed: Vec<_> = listed.into_iter().map(|object| object.name).collect();
    assert!(listed == names, "{} of {count} listed", listed.len());
}
