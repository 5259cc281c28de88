//! What flatc 25.12.19 made of `schema/`. Not edited by hand; `build.rs` rewrites it when flatc is there.

// Included and not a module file, so that rustfmt leaves it as flatc wrote it.
include!("generated/beemesh_generated.rs");
