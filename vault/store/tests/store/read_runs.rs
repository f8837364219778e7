//! Run records: one entry of each number, whoever appends, and only what the kit's holder wrote says something.

use crate::read_fixture::Fixture;
use bytes::Bytes;
use vault_format::ids::object_hash;
use vault_format::names;
use vault_format::run_record::RunName;
use vault_store::read::{Appended, RunEntry, Runs};

fn said(entries: &[RunEntry]) -> Vec<(u64, Option<&[u8]>)> {
    let said = entries.iter();
    said.map(|entry| (entry.number, entry.says.as_deref().ok()))
        .collect()
}

#[tokio::test]
async fn of_two_that_append_one_is_refused_and_both_read_the_same() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.vault().await, fixture.vault().await);
    let (one, other) = (Runs::of(&one), Runs::of(&other));
    let plan = one.plan_id("whole-site");
    assert_eq!(plan, other.plan_id("whole-site"));
    assert_eq!(one.newest(plan).await.unwrap(), None);
    let run = RunName { plan, run: 1 };
    let first = one.append(run, 1, b"begun").await.unwrap();
    assert!(matches!(first, Appended::Done(_)));
    // Its answer was lost, and it asks again.
    assert_eq!(one.append(run, 1, b"begun").await.unwrap(), first);
    assert_eq!(
        other.append(run, 1, b"begun by the other").await.unwrap(),
        Appended::Taken
    );
    let more: Vec<Vec<u8>> = (2..=20u8).map(|number| vec![number; 100]).collect();
    for (number, entry) in (2..).zip(&more) {
        assert!(matches!(
            one.append(run, number, entry).await.unwrap(),
            Appended::Done(_)
        ));
    }
    let read = other.read(run).await.unwrap();
    assert_eq!(first, Appended::Done(read[0].hash));
    let expected: Vec<Vec<u8>> = [vec![b"begun".to_vec()], more].concat();
    let read: Vec<Vec<u8>> = read.into_iter().map(|entry| entry.says.unwrap()).collect();
    assert_eq!(read, expected);

    let next = RunName { plan, run: 12 };
    other.append(next, 1, b"begun").await.unwrap();
    let elsewhere = RunName {
        plan: one.plan_id("another"),
        run: 1,
    };
    other.append(elsewhere, 1, b"begun").await.unwrap();
    assert_eq!(one.newest(plan).await.unwrap().unwrap().0, next);
    let all = one.list().await.unwrap();
    let mut entries: Vec<(u64, u64)> = all
        .into_iter()
        .map(|(run, entries)| (run.run, entries))
        .collect();
    entries.sort_unstable();
    assert_eq!(entries, [(1, 1), (1, 20), (12, 1)]);
}

/// A stolen gateway may create objects: it can take numbers, and neither speak nor keep anybody from speaking.
#[tokio::test]
async fn what_is_not_the_kits_says_nothing_and_bars_nothing() {
    let fixture = Fixture::new().await;
    let vault = fixture.vault().await;
    let runs = Runs::of(&vault);
    let plan = runs.plan_id("p");
    let run = RunName { plan, run: 1 };
    for number in [1, 2, 4] {
        runs.append(run, number, &[number as u8]).await.unwrap();
    }
    let moved = vault.objects.get(&names::run_entry(run, 4)).await.unwrap();
    let create = |name: String, bytes: Bytes| {
        let objects = vault.objects.clone();
        async move { objects.create(&name, bytes).await.unwrap() }
    };
    create(names::run_entry(run, 3), moved.clone()).await;
    create(names::run_entry(run, 5), Bytes::from_static(b"x")).await;
    assert_eq!(runs.append(run, 5, &[5]).await.unwrap(), Appended::Taken);
    runs.append(run, 6, &[6]).await.unwrap();
    // A made-up number, and a made-up run.
    create(names::run_entry(run, 9_999_999_999), moved.clone()).await;
    let made_up = RunName {
        plan,
        run: 9_999_999_999,
    };
    create(names::run_entry(made_up, 1), moved).await;
    let (newest, entries) = runs.newest(plan).await.unwrap().unwrap();
    assert_eq!(newest, run);
    let expected: [(u64, Option<&[u8]>); 6] = [
        (1, Some(&[1])),
        (2, Some(&[2])),
        (3, None),
        (4, Some(&[4])),
        (5, None),
        (6, Some(&[6])),
    ];
    assert_eq!(said(&entries), expected);
    assert_eq!(entries[4].hash, object_hash(b"x"));
}

#[tokio::test]
async fn the_newest_text_of_a_plan_is_kept_and_is_no_run() {
    let fixture = Fixture::new().await;
    let vault = fixture.vault().await;
    let runs = Runs::of(&vault);
    let plan = runs.plan_id("whole-site");
    assert_eq!(runs.kept(plan).await.unwrap(), None);
    runs.keep(plan, b"first").await.unwrap();
    runs.keep(plan, b"second").await.unwrap();
    // What a stranger puts there is passed over, and takes no text's place.
    let strange = names::run_entry(RunName { plan, run: 0 }, 3);
    vault
        .objects
        .create(&strange, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    assert_eq!(runs.kept(plan).await.unwrap().unwrap(), b"second");
    runs.keep(plan, b"third").await.unwrap();
    assert_eq!(runs.kept(plan).await.unwrap().unwrap(), b"third");
    assert_eq!(runs.plans().await.unwrap(), [plan]);
    assert_eq!(
        (
            runs.newest(plan).await.unwrap(),
            runs.list().await.unwrap().len()
        ),
        (None, 0)
    );
}
