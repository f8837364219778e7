# Each target brings what it needs: a Debian machine with the Rust toolchain is enough.
.PHONY: demo test check bench boot test-boot test-failover test-cloud deb

demo:    ## the user's journey on a real disk: two recovery points, and each comes back byte for byte
	tests/setup.sh demo tests/demo.sh

test: check    ## everything: the rules of the house, the Rust tests, the second reader
	tests/setup.sh test tests/run.sh

check:   ## fast rules: format, lints, arrows, file sizes
	tests/setup.sh check tests/check.sh

bench:   ## the table of the README, against other programs where they are installed
	tests/setup.sh bench tests/bench/run

boot:    ## the demo's restored disk, started in QEMU until it asks for a login
	tests/setup.sh demo tests/setup.sh boot tests/demo.sh --boot

test-boot:  ## a real guest that writes all the time: captured, killed over, cut off; every point judged
	tests/setup.sh test-boot tests/boot/test-boot.sh long

test-failover:  ## real guests fail over to the stand-in for AWS, and boot from what it holds; a hundred kills of a run
	tests/setup.sh test tests/boot/test-failover.sh

test-cloud: ## the same guests on a real AWS account (it asks which, and costs half a dollar); REHEARSE=1: against the stand-in, for nothing
	tests/setup.sh test tests/boot/test-cloud.sh $(if $(REHEARSE),--rehearse)

deb:     ## the Debian package: programs for any x86_64 with glibc 2.34 or newer, unit, man pages
	packaging/deb.sh
