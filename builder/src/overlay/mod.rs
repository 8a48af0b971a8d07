//! Overlays: overlay.toml and files, checked.
