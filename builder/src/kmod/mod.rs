//! Kernel modules: their metadata, and the indexes that modprobe reads.
