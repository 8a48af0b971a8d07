//! Writes FAT32 filesystems from a tree.
