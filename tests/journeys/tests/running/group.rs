//! A consistency group stands still at one instant, by its hypervisors' own clocks.

use super::*;

#[test]
fn the_vms_of_a_group_are_stopped_at_the_same_time() {
    let vm = Running::start();
    let other = Qemu::start(vm.site.folder(), "db");
    vm.add(&format!(
        "[[vm]]\nname = \"db\"\npolicy = \"p\"\nsource = {}\n[[group]]\nname = \"both\"\nvms = [\"vm\", \"db\"]\n",
        other.source()
    ));
    let all = [&vm.qemu, &other];
    for round in 1..=2 {
        for qemu in all {
            qemu.write_noise("vd0", round, 0, 2 * MIB);
        }
        let mut heard = all.map(Qemu::monitor);
        let report = vm.site.sync();
        let points = report["vms"].as_array().expect("a list").iter();
        let points: Vec<&Value> = points.map(|vm| &vm["sequence"]).collect();
        assert_eq!(points, [round, round], "{report}");
        let [stops, resumes] = ["STOP", "RESUME"].map(|event| {
            let moments = heard.iter_mut().map(|monitor| monitor.moments(event));
            moments.collect::<Vec<_>>()
        });
        let once = |moments: &Vec<Vec<u64>>| moments.iter().all(|of_one| of_one.len() == 1);
        assert!(once(&stops) && once(&resumes), "{stops:?} {resumes:?}");
        let (stopped, resumed) = (stops.iter().flatten().max(), resumes.iter().flatten().min());
        assert!(stopped <= resumed, "{stops:?} {resumes:?}");
        let first = stops.iter().flatten().min().expect("a stop");
        let last = resumes.iter().flatten().max().expect("a resume");
        // A tenth of it is usual; a machine that does other things too has its time.
        assert!(last - first < 1_000_000, "{stops:?} {resumes:?}");
        for one in report["vms"].as_array().expect("a list") {
            let pause = one["pause_seconds"].as_f64().expect("measured");
            assert!((0.0..1.0).contains(&pause), "{one}");
        }
    }
    for (name, qemu) in [("vm", &vm.qemu), ("db", &other)] {
        let back = vm.site.shown("back.raw");
        vm.site.restore(&["assemble", name, "--output", &back]).ok();
        assert_same(&qemu.copy_disk("vd0"), back.as_ref());
        fs::remove_file(back).expect("removed");
    }
}
