//! A Quadlet of no workload, for a dry run of Podman's generator.
//!
//! Pure: text only.

use beemesh_protocol::{ClusterId, workload::yaml_file};

use super::{Begin, FORMAT, Quadlet};

/// The name of the workload in a [`trial`].
pub const TRIAL: &str = "trial";

/// The `.kube` file of a workload with the name [`TRIAL`], to learn whether Podman's generator accepts a file of this
/// form. The files of workloads differ from it in names and numbers only, and that of a singleton in one line for systemd.
#[must_use]
pub fn trial(grace_seconds: u32, is_job: bool) -> String {
    let quadlet = Quadlet {
        workload: TRIAL.to_owned(),
        revision: 1,
        index: 1,
        cluster: ClusterId([0; 16]),
        yaml: yaml_file(TRIAL, 1),
        format: FORMAT,
    };
    let begin = if is_job { Begin::Gateway } else { Begin::Boot };
    quadlet.text(grace_seconds, begin)
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn it_has_the_form_of_a_workload() {
        let quadlet = read_quadlet(&trial(30, false)).unwrap();
        assert_eq!((quadlet.workload.as_str(), quadlet.format), (TRIAL, FORMAT));
        assert!(is_installed(&trial(30, false)) && !is_installed(&trial(30, true)));
        assert!(trial(7, true).contains("TimeoutStopSec=67\n"));
    }
}
