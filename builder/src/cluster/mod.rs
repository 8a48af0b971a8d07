//! The cluster description: cluster.toml, checked.
