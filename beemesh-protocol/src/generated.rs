//! Code that flatc 25.12.19 generated from `schema/`. Do not edit it; `build.rs` regenerates it if flatc is available.

// Included instead of being a module file, so that rustfmt does not change it.
include!("generated/beemesh_generated.rs");
