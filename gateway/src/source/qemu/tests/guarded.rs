//! The guard, as a process of its own: this test program, told to be it.

use crate::source::qemu::guard;

pub const ENTRY: &str = "source::qemu::tests::guarded::as_a_process";
pub const SWITCH: &str = "SPARESITE_TEST_GUARD";

#[tokio::test]
async fn as_a_process() {
    if std::env::var_os(SWITCH).is_some() {
        // The test's name stands before on this line.
        println!();
        guard::run().await.expect("nothing to do");
    }
}
