//! Carries out the requests of the gateway.
//!
//! Shell: each request becomes one order to systemd, to the mesh, or to the disk.

use beemesh_protocol::ipc::{Done, Request};

use crate::{
    config::{self, Sources},
    mesh::{Mesh, identity::IdentityError},
    systemd::{Order, Systemd},
};

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

pub(super) async fn carry_out(
    systemd: Systemd,
    mesh: Mesh,
    sources: Sources,
    request: Request,
) -> Result<Done, String> {
    let order = match request {
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
