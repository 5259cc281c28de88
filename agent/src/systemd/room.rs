//! Checks that Podman's storage has room for another pod.
//!
//! Shell: asks the kernel. An update takes the old pod down before it creates the new one, so on a full disk it would leave
//! the host without either.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What a pod takes before its containers write anything, with room to spare: Podman's database, and the files that
/// describe the containers. Images are pulled before. ext4 keeps 16 MiB of what it calls free for itself.
const ROOM: u64 = 32 << 20;

/// Fails, with a message for the user, if less than [`ROOM`] is free. A file system that does not say so has room.
pub(super) fn check(storage: &Path) -> Result<(), String> {
    let Ok(found) = statvfs(storage) else {
        return Ok(());
    };
    // Podman runs as root, for which some blocks may be reserved.
    let free = found.blocks_free().saturating_mul(found.fragment_size());
    shortage(storage, free).map_or(Ok(()), Err)
}

fn shortage(storage: &Path, free: u64) -> Option<String> {
    let words = || {
        format!(
            "no space left for another pod in {}: {} KiB are free, and {} KiB are needed",
            storage.display(),
            free >> 10,
            ROOM >> 10
        )
    };
    (free < ROOM).then(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_needs_room_before_the_one_in_its_place_goes() {
        let storage = Path::new("/var/lib/containers/storage");
        let words = "no space left for another pod in /var/lib/containers/storage: 64 KiB are free, and 32768 KiB are needed";
        assert_eq!(shortage(storage, 64 << 10).as_deref(), Some(words));
        assert_eq!(shortage(storage, ROOM), None);
        assert_eq!(check(Path::new("/no/such/folder")), Ok(()));
    }
}
