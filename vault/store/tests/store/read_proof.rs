//! Proofs in the control log: beside entries of others, and as a gateway learns of them.

use crate::read_fixture::{Fixture, TIME};
use crate::site::{Site, disk};
use std::sync::Arc;
use vault_format::control_log::LogEntry;
use vault_format::ids::ObjectHash;
use vault_format::proof::{Proof, ProofLevel};
use vault_format::{PointId, VmId};
use vault_store::StoreError;
use vault_store::read::{PointSelector, Vault, log_proof};

fn proof(vm: VmId, point: PointId, passed: bool) -> Proof {
    Proof {
        vm,
        point,
        level: ProofLevel::Booted,
        passed,
        target: "qemu".into(),
        report: ObjectHash([6; 32]),
        software: "test".into(),
        took_seconds: 95,
    }
}

const POINT: PointId = PointId {
    epoch: 1,
    sequence: 1,
};

async fn log_one(vault: &Vault, vm: VmId) -> Result<u64, StoreError> {
    log_proof(vault, proof(vm, POINT, true), TIME.parse().unwrap()).await
}

#[tokio::test]
async fn a_proof_takes_the_next_number_that_others_left() {
    let mut fixture = Fixture::new().await;
    let (vault, vm) = (fixture.vault().await, VmId([1; 16]));
    let opened = vault.log.number;
    // More of them than a proof tries numbers: it reads on before it tries again.
    for _ in 0..40 {
        fixture
            .command(LogEntry::Fence {
                vms: vec![],
                run: None,
                last: Default::default(),
            })
            .await;
    }
    assert_eq!(log_one(&vault, vm).await.unwrap(), opened + 41);
    let again = fixture.vault().await;
    assert_eq!(again.log.proofs[&vm].newest.number, opened + 41);
    assert!(again.log.void.is_empty() && again.findings.is_empty());
    assert_eq!(log_one(&vault, vm).await.unwrap(), opened + 42);
}

#[tokio::test]
async fn a_proof_whose_answer_was_lost_is_logged_once() {
    let mut fixture = Fixture::new().await;
    let (vault, vm) = (fixture.vault().await, VmId([1; 16]));
    fixture
        .command(LogEntry::Proof(proof(vm, POINT, true)))
        .await;
    assert_eq!(log_one(&vault, vm).await.unwrap(), vault.log.number + 1);
    assert_eq!(fixture.vault().await.log.number, vault.log.number + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_at_the_same_time_all_arrive() {
    let fixture = Fixture::new().await;
    let vault = Arc::new(fixture.vault().await);
    let logged = (1..=8).map(|n| {
        let vault = vault.clone();
        tokio::spawn(async move { log_one(&vault, VmId([n; 16])).await.unwrap() })
    });
    let logged: Vec<_> = logged.collect();
    let mut numbers = Vec::new();
    for one in logged {
        numbers.push(one.await.unwrap());
    }
    numbers.sort_unstable();
    let first = vault.log.number + 1;
    assert_eq!(numbers, (first..first + 8).collect::<Vec<_>>());
    let again = fixture.vault().await;
    assert!(again.log.proofs.len() == 8 && again.log.void.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_knows_of_a_proof_from_the_next_cycle_on() {
    let site = Site::new().await;
    site.sync("vm", &disk(4, 1)).await.unwrap();
    let vault = site.vault().await;
    let latest = vault.find_point("vm", &PointSelector::Latest).await;
    let point = latest.unwrap().manifest.facts.point;
    let vm = vault.id_key.vm_id("vm");
    let known = || site.gateway().status().unwrap()[0].proofs.clone();
    assert_eq!(known(), None);
    let now = TIME.parse().unwrap();
    let passed = log_proof(&vault, proof(vm, point, true), now).await;
    let failed = log_proof(&vault, proof(vm, point, false), now).await;
    assert_eq!(known(), None, "nothing is asked of the vault for it");
    site.gateway().begin_cycle(&|_| {}).await.unwrap();
    let proofs = known().unwrap();
    assert_eq!(proofs.newest.number, failed.unwrap());
    assert_eq!(proofs.newest.proof, proof(vm, point, false));
    assert_eq!(proofs.passed().unwrap().number, passed.unwrap());
    assert_eq!(proofs.newest.time, TIME);
}
