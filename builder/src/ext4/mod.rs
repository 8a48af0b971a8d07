//! Writes ext4 filesystems from a tree.
