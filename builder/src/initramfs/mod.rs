//! The initramfs: busybox, modules, one readable init.
