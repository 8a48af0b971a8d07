//! Tests of the whole writer that need `pub(crate)` strategies. Foreign judges are in tests/.
