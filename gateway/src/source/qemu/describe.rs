//! What QEMU says of the VM.
