//! What a gateway merges: index segments (one for every 64 packs, and a wider one for every eight of those) and map layers.

mod site;

use site::*;
use vault_format::names::{self, Name, Span};
use vault_store::gateway::{Gateway, GatewayOptions};
use vault_store::read::{PointSelector, VerifyOptions, verify};

async fn spans(site: &Site) -> Vec<(Span, String)> {
    let listed = site.objects.list(names::INDEX).await.unwrap();
    let span = |name: String| match names::parse(&name) {
        Some(Name::Segment(span, _)) => (span, name),
        other => panic!("{name}: {other:?}"),
    };
    listed.into_iter().map(|listed| span(listed.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_segments_become_one_which_holds_all_that_they_held() {
    let site = Site::new().await;
    let mut disk = vec![0; 520 * CHUNK];
    for (position, chunk) in disk.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    // A pack for each chunk.
    let options = GatewayOptions {
        pack_bytes: 1,
        ..small_packs()
    };
    {
        let (objects, state) = (site.objects.clone(), site.state_folder());
        let mut gateway = Gateway::open(objects, site.key(), &state, options).unwrap();
        cycle(&mut gateway, "vm", &disk).await.unwrap();
    }
    let spans = spans(&site).await;
    let packs = |span: &Span| span.last - span.first + 1;
    let wide: Vec<&Span> = spans
        .iter()
        .map(|(span, _)| span)
        .filter(|span| packs(span) == 512)
        .collect();
    assert_eq!((wide.len(), spans.len()), (1, 9), "{spans:?}");
    let narrow = spans.iter().filter(|(span, _)| packs(span) == 64);
    for (span, name) in narrow {
        assert!(wide[0].supersedes(span), "{span:?}");
        std::fs::remove_file(site.vault_folder().join(name)).unwrap();
    }

    let vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions::default(), &|_| {})
        .await
        .unwrap();
    assert_eq!((report.damaged, report.findings), (vec![], vec![]));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
    // A state that is lost is learned from it: one GET for 512 packs, the trailers of the other eight.
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    let before = site.meter.snapshot();
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!((report.chunks_full, report.chunks_patched), (0, 0));
    let used = site.meter.snapshot() - before;
    assert!(used.get < 30, "{used:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_layers_that_no_disk_has_any_more_no_copies_stay_in_the_state() {
    let site = Site::new().await;
    let copies = || std::fs::read_dir(site.state_folder().join("layers")).unwrap();
    // More ids than fit inline.
    let mut large = vec![0; 2200 * CHUNK];
    for (position, chunk) in large.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    site.sync("vm", &large).await.unwrap();
    assert_eq!(copies().count(), 1);
    site.sync("other", &disk(10, 1)).await.unwrap();
    assert_eq!(copies().count(), 1, "that of a VM beside");
    let mut renamed = capture("vm", &disk(10, 2));
    renamed.disks[0].name = "renamed".into();
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.sync_vm(renamed, &|_| {}, crash).await.unwrap();
    assert_eq!(copies().count(), 0);
}
