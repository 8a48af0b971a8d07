//! Installs packages into a tree: unpack natively, run maintainer scripts in a sandbox, normalise.
