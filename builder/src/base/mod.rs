//! Bases: what a node starts from, and the lock that pins it to exact bytes.

pub mod tar;
