//! Containers that Podman restarts several times before the supervisor looks.

use super::{
    restarts::{attached, hold, member, sees, trouble},
    *,
};

#[test]
fn a_burst_of_restarts_by_podman_is_one_restart() {
    let down = "app: exit 3, 6 times, next try at 13:47:15 UTC";
    let fast = trouble(1, 5, "app: ended, 5 times");
    // Podman restarted it five times before the supervisor looked.
    let burst = sees(20, member(20, None, 5, false));
    let end = sees(25, member(20, Some(25), 5, true));
    let end = (25, end, vec![trouble(0, 5, down)]);
    let steps = [(20, burst, vec![fast, hold()]), end];
    tell(
        [adopted(OLD), attached()]
            .into_iter()
            .chain(steps)
            .collect(),
    );
}
