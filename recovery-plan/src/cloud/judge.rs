//! All that a cloud answered, judged.

use std::collections::BTreeMap;

use console::Finding;

use super::{CloudFacts, KeyFacts, May, QuotaRow, Right, Unasked, network, quota};
use crate::judge::Row;
use crate::plan::Plan;

#[derive(Debug, Clone, PartialEq)]
pub struct CloudJudged {
    pub quotas: Vec<QuotaRow>,
    pub findings: Vec<Finding>,
    pub notes: Vec<String>,
}

/// `rows` are those of the plan, judged.
pub fn judge_cloud(plan: &Plan, rows: &[Row], facts: &CloudFacts) -> CloudJudged {
    let (quotas, mut findings) = quota::judge(plan, rows, facts);
    findings.extend(network::offers(plan, facts));
    findings.extend(network::subnets(plan, facts));
    findings.extend(network::security_groups(plan, facts));
    findings.extend(network::addresses(plan, facts));
    findings.extend(key(plan, facts));
    let mut notes = Vec::new();
    if let Ok(rights) = &facts.rights {
        findings.extend(rights.iter().filter_map(denied));
        notes.extend(rights_told(rights));
    }
    findings.extend(unasked(facts));
    CloudJudged {
        quotas,
        findings,
        notes,
    }
}

fn key(plan: &Plan, facts: &CloudFacts) -> Option<Finding> {
    let answer = facts.key.as_ref()?.as_ref().ok()?;
    let another = "name another one as `volume_key` in the plan (AWS console, KMS: symmetric, to encrypt and decrypt)";
    let (why, remedy) = match answer {
        None => (
            format!("there is no such key in {}", plan.region),
            another.to_owned(),
        ),
        Some(KeyFacts { state, .. }) if state != "Enabled" => (
            format!("it is {state}"),
            format!("AWS console, KMS, that key: cancel its deletion, or enable it; or {another}"),
        ),
        Some(KeyFacts {
            encrypts: false, ..
        }) => (
            "volumes need a symmetric key that encrypts".into(),
            another.to_owned(),
        ),
        Some(_) => return None,
    };
    Some(Finding::new(
        "volumes cannot be encrypted with the plan's key",
        plan.volume_key.clone().unwrap_or_default(),
        why,
        remedy,
    ))
}

fn denied(right: &Right) -> Option<Finding> {
    let May::No(why) = &right.may else {
        return None;
    };
    Some(Finding::new(
        format!(
            "this identity may not do what a failover does: {}",
            right.action
        ),
        &right.on,
        why,
        format!(
            "give it {} (terraform/aws/roles, cloud-restore, has it), or run this as the identity that will do it",
            right.action
        ),
    ))
}

fn rights_told(rights: &[Right]) -> Vec<String> {
    if rights.is_empty() {
        let note = "rights were not asked: a dry run needs an image that a run made, and there is none. Check again while a rehearsal is up (`failover --test` without --clean-up)";
        return vec![note.into()];
    }
    let untold = rights.iter().filter_map(|right| match &right.may {
        May::Untold(why) => Some(format!(
            "whether this identity has {} could not be told ({}): {why}",
            right.action, right.on
        )),
        _ => None,
    });
    let note = "rights were asked by dry runs; to begin a snapshot and to send blocks has none: a rehearsal proves those";
    std::iter::once(note.into()).chain(untold).collect()
}

/// One finding for each right that is missing, and each other reason: with all that could not be asked.
fn unasked(facts: &CloudFacts) -> Vec<Finding> {
    fn missing<T>(answer: &Result<T, Unasked>) -> Option<&Unasked> {
        answer.as_ref().err()
    }
    let quotas = facts.quotas.values().filter_map(missing);
    let others = [
        missing(&facts.vcpus),
        missing(&facts.running),
        missing(&facts.offered),
        missing(&facts.subnets),
        missing(&facts.security_groups),
        missing(&facts.holders),
        missing(&facts.volumes_gib),
        missing(&facts.snapshots),
        facts.key.as_ref().and_then(missing),
        missing(&facts.rights),
    ];
    let mut by_right: BTreeMap<(&str, &str), Vec<&Unasked>> = BTreeMap::new();
    for one in quotas.chain(others.into_iter().flatten()) {
        let key = match one.right {
            Some(right) => (right, ""),
            None => ("", one.why.as_str()),
        };
        by_right.entry(key).or_default().push(one);
    }
    // An identity that may look at nothing, the gateway's for one: said once.
    let looks = [
        facts.running.is_ok(),
        facts.offered.is_ok(),
        facts.volumes_gib.is_ok(),
        facts.snapshots.is_ok(),
    ];
    if !looks.contains(&true) {
        let rights: Vec<&str> = by_right.keys().map(|(right, _)| *right).collect();
        let all = by_right.into_values().flatten().collect();
        return vec![not_told(&rights.join(", "), all)];
    }
    let by_right = by_right.into_iter();
    by_right
        .map(|((right, _), all)| not_told(right, all))
        .collect()
}

fn not_told(rights: &str, all: Vec<&Unasked>) -> Finding {
    let what: Vec<&str> = all.iter().map(|one| one.what.as_str()).collect();
    let remedy = match rights {
        "" => "run the same command again".to_owned(),
        _ => format!(
            "check as the role that would do the failover, or give this one {rights} (terraform/aws/roles, cloud-restore, has them)"
        ),
    };
    let why = all.first().map(|one| one.why.clone()).unwrap_or_default();
    Finding::new("the cloud could not be asked", what.join(", "), why, remedy)
}
