//! Runs single probes. Shell: [`super::Prober`] decides when, and what the results mean.
//!
//! Each run is a task of the supervisor's runtime, so that the supervisor goes on meanwhile. The prober starts no probe
//! twice, which bounds the number of tasks and of results that wait. Connections go to the address of the pod, which
//! comes from Podman, or to one that a manifest names and the policy of the cluster permitted. Of an answer over HTTP or gRPC only the status is shown.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beemesh_protocol::pod::{TEXT_CHARS_MAX, clean, last_line};
use tokio::sync::mpsc;

use super::spec::{Handler, HttpGet};
use super::{Due, Fault, Outcome, Ticket};
use crate::podman::Podman;
use turn::Turn;

mod exec;
mod grpc;
mod redirect;
mod request;
mod tls;
mod turn;

/// Results that wait for the supervisor. More probes than this wait with their results, and do not run meanwhile.
const RESULTS_MAX: usize = 64;
/// The version in the name that kubelet of this release gives itself in requests.
const VERSION: &str = "1.33";

/// A run of a probe that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub ticket: Ticket,
    /// Its result.
    pub outcome: Outcome,
}

/// Runs the probes of one pod.
#[derive(Debug)]
pub struct Runner {
    podman: Podman,
    /// The folder of the locks that bound the commands of all supervisors.
    run: PathBuf,
    results: mpsc::Sender<Finished>,
}

impl Runner {
    /// A runner, and the results of its runs. All supervisors of the host share the folder `run`.
    #[must_use]
    pub fn new(podman: Podman, run: &Path) -> (Self, mpsc::Receiver<Finished>) {
        let (results, receiver) = mpsc::channel(RESULTS_MAX);
        let runner = Self {
            podman,
            run: run.to_owned(),
            results,
        };
        (runner, receiver)
    }

    /// Starts a run against the pod with this address, in a task of its own.
    pub fn start(&self, due: Due, address: Option<IpAddr>) {
        let (podman, results) = (self.podman.clone(), self.results.clone());
        let run = self.run.clone();
        tokio::spawn(async move {
            let Due { ticket, id, probe } = due;
            let pod = Pod {
                podman: &podman,
                container: &id,
                address,
            };
            let turn = match &probe.handler {
                Handler::Exec(_) => Turn::take(&run).await,
                _ => None,
            };
            let outcome = turn::within(turn, pod.probe(&probe.handler, probe.timeout)).await;
            // The supervisor is ending if nobody receives it.
            let _ = results.send(Finished { ticket, outcome }).await;
        });
    }
}

/// Where a probe or a hook runs.
#[derive(Debug, Clone, Copy)]
pub(in crate::supervisor) struct Pod<'a> {
    pub(in crate::supervisor) podman: &'a Podman,
    /// The id of the container.
    pub(in crate::supervisor) container: &'a str,
    /// The address of its pod.
    pub(in crate::supervisor) address: Option<IpAddr>,
}

impl Pod<'_> {
    async fn probe(&self, handler: &Handler, timeout: Duration) -> Outcome {
        match handler {
            Handler::Exec(command) => exec::run(self, command, timeout).await,
            Handler::Http(get) => {
                let address = match self.address_of(get.host.as_deref()) {
                    Ok(address) => address,
                    Err(reason) => return Outcome::Unknown(reason),
                };
                let agent = format!("kube-probe/{VERSION}");
                let answer = within(timeout, request::get(address, get, &agent)).await;
                answer.map_or_else(Outcome::Failure, judged)
            }
            Handler::Tcp { host, port } => {
                let address = match self.address_of(host.as_deref()) {
                    Ok(address) => address,
                    Err(reason) => return Outcome::Unknown(reason),
                };
                match within(timeout, request::connect(address, *port)).await {
                    Ok(Ok(_)) => Outcome::Success,
                    Ok(Err(reason)) => failed(&reason),
                    Err(fault) => Outcome::Failure(fault),
                }
            }
            Handler::Grpc { port, service } => {
                let address = match self.address_of(None) {
                    Ok(address) => address,
                    Err(reason) => return Outcome::Unknown(reason),
                };
                let health = grpc::check(address, *port, service);
                match within(timeout, health).await {
                    Ok(Ok(())) => Outcome::Success,
                    Ok(Err(reason)) => failed(&reason),
                    Err(fault) => Outcome::Failure(fault),
                }
            }
            Handler::Sleep(_) => Outcome::Unknown("a probe cannot sleep".to_owned()),
            Handler::Broken(reason) => Outcome::Unknown(reason.clone()),
        }
    }

    /// Runs a hook. The error is a message without output of the container.
    pub(in crate::supervisor) async fn hook(
        &self,
        handler: &Handler,
        limit: Duration,
    ) -> Result<(), String> {
        match handler {
            Handler::Exec(command) => match exec::run(self, command, limit).await {
                Outcome::Success | Outcome::Warning(_) => Ok(()),
                Outcome::Failure(fault) => Err(fault.reason(limit)),
                Outcome::Unknown(reason) => Err(reason),
            },
            Handler::Http(get) => {
                let address = self.address_of(get.host.as_deref())?;
                self.hook_http(address, get, limit).await
            }
            Handler::Sleep(time) => {
                tokio::time::sleep((*time).min(limit)).await;
                match *time <= limit {
                    true => Ok(()),
                    false => Err(late(limit)),
                }
            }
            Handler::Tcp { .. } | Handler::Grpc { .. } => {
                Err("a hook cannot only connect".to_owned())
            }
            Handler::Broken(reason) => Err(reason.clone()),
        }
    }

    /// Any answer is a success, as in Kubernetes, which also falls back to a server without TLS.
    async fn hook_http(
        &self,
        address: IpAddr,
        get: &HttpGet,
        limit: Duration,
    ) -> Result<(), String> {
        let agent = format!("kube-lifecycle/{VERSION}");
        let answer = within(limit, async {
            match request::get(address, get, &agent).await {
                request::Answer::NoTls if get.tls => {
                    let plain = HttpGet {
                        tls: false,
                        ..get.clone()
                    };
                    request::get(address, &plain, &agent).await
                }
                answer => answer,
            }
        });
        match answer.await {
            Ok(request::Answer::Failed(reason)) => Err(reason),
            Ok(request::Answer::NoTls) => Err(request::NO_TLS.to_owned()),
            Ok(
                request::Answer::Status(_) | request::Answer::Elsewhere | request::Answer::Cut(_),
            ) => Ok(()),
            Err(_) => Err(late(limit)),
        }
    }

    /// The address to connect to. A host that a manifest names was permitted by the policy of the cluster.
    fn address_of(&self, host: Option<&str>) -> Result<IpAddr, String> {
        match host {
            Some(host) => host.parse().map_err(|_| {
                let host = clean(host, TEXT_CHARS_MAX / 2);
                format!("host {host} is no address: probes and hooks look up no names")
            }),
            None => self
                .address
                .ok_or_else(|| "the pod has no address".to_owned()),
        }
    }
}

impl Fault {
    /// The failure of a command, without its output.
    fn reason(&self, limit: Duration) -> String {
        match (self.timed_out, self.exit) {
            (true, _) => late(limit),
            (false, Some(code)) => format!("exit {code}"),
            (false, None) => self.output.clone(),
        }
    }
}

fn judged(answer: request::Answer) -> Outcome {
    match answer {
        request::Answer::Status(200..=299) => Outcome::Success,
        request::Answer::Status(300..=399) | request::Answer::Elsewhere => {
            Outcome::Warning("the probe ended at a redirect that it does not follow".to_owned())
        }
        request::Answer::Status(status) => {
            failed(&format!("HTTP probe failed with statuscode: {status}"))
        }
        request::Answer::Failed(reason) => failed(&reason),
        request::Answer::NoTls => failed(request::NO_TLS),
        request::Answer::Cut(reason) => Outcome::Unknown(reason),
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failure(Fault {
        output: clean(reason, TEXT_CHARS_MAX),
        ..Fault::default()
    })
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(limit, work).await.map_err(|_| Fault {
        timed_out: true,
        output: format!("no answer within {}s", limit.as_secs_f64()),
        ..Fault::default()
    })
}

fn late(limit: Duration) -> String {
    format!("timed out after {}s", limit.as_secs_f64())
}

/// The last line of a command's output.
fn last_words(output: &[u8]) -> String {
    last_line(&String::from_utf8_lossy(output), TEXT_CHARS_MAX)
}

#[cfg(test)]
mod tests;
