//! Carries out the requests of the gateway.
//!
//! Shell: each request becomes one order to systemd, to the mesh, or to the disk.

use beemesh_protocol::ipc::{Checked, Done, Listener, PortAsked, Request, Transport};

use crate::{
    config::{self, Sources},
    mesh::{Mesh, identity::IdentityError},
    ports::{Ports, Protocol},
    systemd::{Order, Systemd},
};

/// Maximum number of ports in one check. A pod with more is checked for these.
const PORTS_MAX: usize = 64;

/// Changes the host's keys on a blocking thread, because it waits for the disk.
pub(super) async fn keyed<T: Send + 'static>(
    change: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, String> {
    let changed = tokio::task::spawn_blocking(change).await;
    let changed = changed.map_err(|error| error.to_string())?;
    changed.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

async fn advertise(sources: Sources, addresses: Vec<String>) -> Result<Done, String> {
    let kept = tokio::task::spawn_blocking(move || {
        let name = config::host_name().map_err(|error| format!("{error:#}"))?;
        config::keep_advertised(&sources, &name, &addresses)
    });
    let kept = kept
        .await
        .map_err(|error| format!("keep the addresses: {error}"))?;
    kept.map(|()| Done::Done)
}

/// Finds the processes that listen on these ports, on a blocking thread: the holder reads the files of all processes.
async fn listeners(ports: Ports, asked: Vec<PortAsked>) -> Result<Vec<Listener>, String> {
    let found = move || {
        let found = asked.into_iter().take(PORTS_MAX).filter_map(|asked| {
            let PortAsked { transport, port } = asked;
            let protocol = match transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            };
            let addresses = ports.addresses(protocol, port);
            if addresses.is_empty() {
                return None;
            }
            let owner = ports.who(protocol, port).unwrap_or_default();
            let (process, container) = told_apart(&owner);
            Some(Listener {
                transport,
                port,
                addresses,
                process,
                container,
            })
        });
        found.collect()
    };
    let found = tokio::task::spawn_blocking(found).await;
    found.map_err(|error| format!("find the processes that listen: {error}"))
}

/// The process and the container in the words of the holder.
fn told_apart(owner: &str) -> (String, String) {
    let parts = owner
        .strip_suffix(')')
        .and_then(|owner| owner.split_once(", of container "));
    match parts {
        Some((process, container)) => (format!("{process})"), container.to_owned()),
        None => (owner.to_owned(), String::new()),
    }
}

pub(super) async fn carry_out(
    systemd: Systemd,
    mesh: Mesh,
    ports: Ports,
    sources: Sources,
    request: Request,
) -> Result<Done, String> {
    let order = match request {
        Request::Check {
            workload,
            kube,
            ports: asked,
        } => {
            let checks = (systemd.refuses(&workload, &kube), listeners(ports, asked));
            let (unit, listeners) = tokio::join!(checks.0, checks.1);
            return Ok(Done::Checked(Checked {
                unit: unit.unwrap_or_default(),
                listeners: listeners?,
            }));
        }
        Request::PutUnit(files) => Order::Put(files),
        Request::RemoveUnit { workload } => Order::Remove(workload),
        Request::TidyUnit { workload } => Order::Tidy(workload),
        Request::StartUnit { workload } => Order::Start(workload),
        Request::StopUnit { workload } => Order::Stop(workload),
        Request::SyncStorage => Order::SyncStorage,
        Request::Advertise { addresses } => return advertise(sources, addresses).await,
        Request::Join {
            host,
            addresses,
            request,
        } => {
            return mesh
                .apply(host, &addresses, &request)
                .await
                .map(Done::Joined);
        }
        Request::MakeKey | Request::UseKey { .. } => {
            return Err("neither the mesh nor systemd changes the host's keys".to_owned());
        }
    };
    systemd.carry_out(order).await.map(|()| Done::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_by_process_and_container() {
        for (owner, process, container) in [
            ("nginx (process 812)", "nginx (process 812)", ""),
            (
                "conmon (process 7, of container web-main)",
                "conmon (process 7)",
                "web-main",
            ),
            ("", "", ""),
        ] {
            let expected = (process.to_owned(), container.to_owned());
            assert_eq!(told_apart(owner), expected, "{owner}");
        }
    }
}
