//! The boot tree: firmware, device trees, config.txt, cmdline.txt, kernel and initramfs.
