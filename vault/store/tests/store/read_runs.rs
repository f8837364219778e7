//! Run records: one entry of each number, whoever appends, and only what the kit's holder wrote.

use crate::read_fixture::Fixture;
use vault_format::names;
use vault_format::run_record::RunName;
use vault_store::read::{Appended, Runs};

#[tokio::test]
async fn of_two_that_append_one_is_refused_and_both_read_the_same() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.vault().await, fixture.vault().await);
    let (one, other) = (Runs::of(&one), Runs::of(&other));
    let plan = one.plan_id("whole-site");
    assert_eq!(plan, other.plan_id("whole-site"));
    assert_eq!(one.newest(plan).await.unwrap(), None);
    let run = RunName { plan, run: 1 };
    assert_eq!(one.append(run, 1, b"begun").await.unwrap(), Appended::Done);
    // Its answer was lost, and it asks again.
    assert_eq!(one.append(run, 1, b"begun").await.unwrap(), Appended::Done);
    assert_eq!(
        other.append(run, 1, b"begun by the other").await.unwrap(),
        Appended::Taken
    );
    let entries: Vec<Vec<u8>> = (2..=20u8).map(|number| vec![number; 100]).collect();
    for (number, entry) in (2..).zip(&entries) {
        assert_eq!(
            one.append(run, number, entry).await.unwrap(),
            Appended::Done
        );
    }
    let read = other.read(run, 1).await.unwrap();
    assert_eq!((read.len(), read[0].as_slice()), (20, &b"begun"[..]));
    assert_eq!(read[1..], entries);
    assert_eq!(other.read(run, 20).await.unwrap(), [vec![20; 100]]);
    assert!(other.read(run, 21).await.unwrap().is_empty());

    let next = RunName { plan, run: 12 };
    other.append(next, 1, b"begun").await.unwrap();
    let elsewhere = RunName {
        plan: one.plan_id("another"),
        run: 1,
    };
    other.append(elsewhere, 1, b"begun").await.unwrap();
    assert_eq!(one.newest(plan).await.unwrap(), Some(next));
    let all = one.list().await.unwrap();
    let mut entries: Vec<(u64, u64)> = all
        .into_iter()
        .map(|(run, entries)| (run.run, entries))
        .collect();
    entries.sort_unstable();
    assert_eq!(entries, [(1, 1), (1, 20), (12, 1)]);
}

#[tokio::test]
async fn an_entry_that_was_moved_or_damaged_is_an_error_with_its_name() {
    let fixture = Fixture::new().await;
    let vault = fixture.vault().await;
    let runs = Runs::of(&vault);
    let run = RunName {
        plan: runs.plan_id("p"),
        run: 1,
    };
    for number in 1..=3 {
        runs.append(run, number, &[number as u8]).await.unwrap();
    }
    let (second, third) = (names::run_entry(run, 2), names::run_entry(run, 3));
    let moved = vault.objects.get(&third).await.unwrap();
    fixture.objects.put(&second, moved);
    let error = runs.read(run, 1).await.unwrap_err().to_string();
    assert!(error.contains(&second), "{error}");
}
