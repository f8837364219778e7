//! The faulty store does what its plan says, the same way every time.

use std::time::Duration;

use vault_store::objects::faulty::{Fault, FaultPlan, Faulty};
use vault_store::objects::{
    Created, Meter, ObjectError, Objects, RetryPolicy, Retrying, in_memory,
};

async fn with_objects(plan: FaultPlan) -> Faulty<std::sync::Arc<dyn Objects>> {
    let memory = in_memory(Meter::new());
    for (name, bytes) in [
        ("p/a", "aaaaaaaa"),
        ("p/b", "bbbbbbbb"),
        ("q/c", "cccccccc"),
    ] {
        memory.create(name, bytes.into()).await.unwrap();
    }
    Faulty::new(memory, plan)
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let at = |fault| FaultPlan::seeded(5).at(0, fault);

    let before = with_objects(at(Fault::FailBefore)).await;
    before.create("n", "1".into()).await.unwrap_err();
    assert_eq!(before.create("n", "1".into()).await.unwrap(), Created::New);

    let after = with_objects(at(Fault::FailAfter)).await;
    after.create("n", "1".into()).await.unwrap_err();
    assert_eq!(
        after.create("n", "1".into()).await.unwrap(),
        Created::Exists
    );

    let throttled = with_objects(at(Fault::Throttled)).await;
    let error = throttled.get("p/a").await.unwrap_err();
    assert!(matches!(error, ObjectError::Throttled { .. }), "{error}");

    let truncated = with_objects(at(Fault::Truncated)).await;
    let error = truncated.get("p/a").await.unwrap_err();
    assert!(matches!(error, ObjectError::Truncated { .. }), "{error}");

    let short = with_objects(at(Fault::ShortBody))
        .await
        .get("p/a")
        .await
        .unwrap();
    assert!(short.len() < 8);

    let flipped = with_objects(at(Fault::FlippedBit))
        .await
        .get("p/a")
        .await
        .unwrap();
    let bits = flipped
        .iter()
        .zip(b"aaaaaaaa")
        .map(|(x, y)| (x ^ y).count_ones());
    assert_eq!((flipped.len(), bits.sum::<u32>()), (8, 1));

    let swapped = with_objects(at(Fault::Swapped)).await;
    assert_eq!(swapped.get_range("p/a", 2..5).await.unwrap(), "bbb");
    assert_eq!(swapped.get("p/a").await.unwrap(), "aaaaaaaa", "only once");
    assert_eq!(swapped.injected(), 1);

    let stale = with_objects(FaultPlan::seeded(5).at(1, Fault::StaleList)).await;
    stale.create("p/new", "1".into()).await.unwrap();
    assert_eq!(stale.list("p").await.unwrap().len(), 2);
    assert_eq!(stale.list("p").await.unwrap().len(), 3);
}

#[tokio::test]
async fn dying_ends_everything_and_may_apply_the_last() {
    for applied in [false, true] {
        let dying = with_objects(FaultPlan::seeded(1).dies_at(1, applied)).await;
        dying.create("n/0", "1".into()).await.unwrap();
        let last = dying.create("n/1", "1".into()).await.unwrap_err();
        assert_eq!(last, ObjectError::Dead { operation: 1 });
        let dead = dying.create("n/2", "1".into()).await.unwrap_err();
        assert_eq!(dead, ObjectError::Dead { operation: 2 });
        dying.list("n").await.unwrap_err();
        assert_eq!(dying.operations(), 4);
        let left = dying.inner().list("n").await.unwrap();
        let left: Vec<_> = left.iter().map(|object| object.name.as_str()).collect();
        let expected: &[&str] = if applied { &["n/0", "n/1"] } else { &["n/0"] };
        assert_eq!(left, expected);
    }
}

/// What one run meets, operation by operation.
async fn trace(seed: u64, order: &[u32]) -> Vec<(u32, bool)> {
    let plan = FaultPlan::seeded(seed).with(Fault::Throttled, 300);
    let faulty = with_objects(plan).await;
    let mut trace = Vec::new();
    for number in order {
        let failed = faulty.size(&format!("p/{number}")).await.is_err();
        trace.push((*number, failed));
    }
    trace.sort();
    trace
}

#[tokio::test]
async fn a_seed_repeats_its_faults_whatever_the_order() {
    let forward: Vec<u32> = (0..200).collect();
    let backward: Vec<u32> = (0..200).rev().collect();
    let first = trace(7, &forward).await;
    assert_eq!(first, trace(7, &backward).await);
    assert_ne!(first, trace(8, &forward).await);
    let failed = first.iter().filter(|(_, failed)| *failed).count();
    assert!((30..=90).contains(&failed), "{failed} of 200 at 30 %");
}

#[tokio::test]
async fn retries_are_bounded_and_the_dead_stay_dead() {
    let policy = RetryPolicy {
        attempts: 4,
        first_pause: Duration::from_micros(10),
        ..RetryPolicy::default()
    };
    let always = with_objects(FaultPlan::seeded(1).with(Fault::Throttled, 1000)).await;
    let retrying = Retrying::new(always, policy, 3);
    retrying.get("p/a").await.unwrap_err();
    assert_eq!(retrying.inner().operations(), 4);

    let dead = with_objects(FaultPlan::seeded(1).dies_at(0, false)).await;
    let retrying = Retrying::new(dead, policy, 3);
    let error = retrying.get("p/a").await.unwrap_err();
    assert_eq!(error, ObjectError::Dead { operation: 0 });
    assert_eq!(retrying.inner().operations(), 1);

    let missing = Retrying::new(with_objects(FaultPlan::default()).await, policy, 3);
    assert!(missing.get("p/none").await.unwrap_err().is_not_found());
    assert_eq!(missing.inner().operations(), 1);
}
