//! Renders an overlay for a node into a layer.
