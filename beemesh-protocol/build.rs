//! Generates `src/generated/` from `schema/` if the machine has the version of flatc that the `flatbuffers` crate needs.
//!
//! The program is `FLATC`, or else `flatc` in PATH. Without it, or with another version, the build uses the committed
//! file, so that Beemesh builds without flatc.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// What `flatc --version` must say: generated code works only with the crate of the same version.
const VERSION: &str = "flatc version 25.12.19";
/// The one file flatc makes of all schemas.
const GENERATED: &str = "beemesh_generated.rs";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-env-changed=FLATC");
    let flatc = env::var_os("FLATC").map_or_else(|| PathBuf::from("flatc"), PathBuf::from);
    let (Some(root), Some(out)) = (env::var_os("CARGO_MANIFEST_DIR"), env::var_os("OUT_DIR"))
    else {
        return Err(io::Error::other("cargo did not name the package's folders"));
    };
    let (root, out) = (Path::new(&root), Path::new(&out));
    if !is_ours(&flatc) {
        return Ok(());
    }
    let made = Command::new(&flatc)
        .args(["--rust", "--gen-all", "-o"])
        .arg(out)
        .arg(root.join("schema/beemesh.fbs"))
        .output()?;
    if !made.status.success() {
        let words = [made.stdout, made.stderr].concat();
        return Err(io::Error::other(
            String::from_utf8_lossy(&words).into_owned(),
        ));
    }
    let fresh = fs::read(out.join(GENERATED))?;
    let committed = root.join("src/generated").join(GENERATED);
    // An unchanged file keeps its time, or every build would compile it again.
    if fs::read(&committed).ok().as_ref() != Some(&fresh) {
        fs::write(&committed, fresh)?;
    }
    Ok(())
}

fn is_ours(flatc: &Path) -> bool {
    Command::new(flatc)
        .arg("--version")
        .output()
        .is_ok_and(|answer| answer.stdout.trim_ascii() == VERSION.as_bytes())
}
