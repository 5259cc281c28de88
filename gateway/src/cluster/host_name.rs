//! What a host is called in the member list.
//!
//! Pure.

use beemesh_protocol::{
    HostId,
    ipc::Welcome,
    naming::{self, Said},
};

use super::state::State;

/// What the agent says of the host's name, with the members.
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

/// What is wrong with this host's name, in words for a person; empty when nothing is.
pub(crate) fn name_trouble(host: HostId, welcome: &Welcome, state: &State) -> String {
    decided(host, welcome, state).map_or_else(String::new, |(_, trouble)| trouble)
}
