//! The name of a host in the member list.
//!
//! Pure.

use beemesh_protocol::{
    HostId,
    ipc::Welcome,
    naming::{self, Said},
};

use super::state::State;

/// The name that this member should have, and a message if there is a problem with the name that the agent reports.
/// `None` if the host is no member.
pub(crate) fn decided<'a>(
    host: HostId,
    welcome: &'a Welcome,
    state: &'a State,
) -> Option<(&'a str, String)> {
    let said = Said {
        name: &welcome.name,
        is_set: welcome.name_is_set,
    };
    let members = state.hosts().values();
    naming::decide(host, said, members.map(|one| (one.id, one.name.as_str())))
}

/// The problem with this host's name, as a message; empty if there is none.
pub(crate) fn name_trouble(host: HostId, welcome: &Welcome, state: &State) -> String {
    decided(host, welcome, state).map_or_else(String::new, |(_, trouble)| trouble)
}
