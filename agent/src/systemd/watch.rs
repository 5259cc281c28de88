//! Follows systemd over D-Bus for as long as the events have a receiver.
//!
//! Shell: signals, lists and notes go into the [`Table`], and events come out. The loop never waits for an answer from
//! the bus: lists and starts run in tasks. A full queue of signals would block the answers, too, because they arrive on
//! the same connection.

use std::{
    collections::BTreeMap,
    collections::BTreeSet,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use beemesh_protocol::workload::{GATEWAY_UNIT, UNIT_PATTERN, unit_pod};
use futures::StreamExt;
use tokio::{
    sync::{mpsc, watch as cell},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use zbus::{
    Connection, MatchRule, Message, MessageStream,
    fdo::{DBusProxy, PropertiesChanged},
    message::Type,
    wire::Variant,
};

use super::{
    Note, SystemdEvent, blocking,
    lifecycle::{Gateway, Silence, Suspicion, pause},
    manager::{self, ManagerProxy, SERVICE, UNIT, UNIT_SERVICE, UNITS, words},
    table::{Changed, Table},
    units::Units,
};

/// A boot changes hundreds of units in a moment. Each signal takes about a kilobyte.
const SIGNALS_MAX: NonZeroUsize = NonZeroUsize::new(512).expect("512 is not 0");
/// The unit that repairs Podman's storage after a power cut.
const REPAIR: &str = "beemesh-repair.service";
/// Longer than systemd's limit for generators in a reload, so only a call to a hanging bus times out.
const CALL_SECONDS_MAX: u64 = 100;

#[derive(Debug)]
pub(super) struct Watch {
    units: Units,
    events: mpsc::Sender<SystemdEvent>,
    notes: mpsc::Receiver<Note>,
    bus: cell::Sender<Option<Connection>>,
    table: Table,
    gateway: Gateway,
    silence: Silence,
    connected: cell::Receiver<bool>,
    suspicion: Suspicion,
    gateway_active: String,
    gateway_restarts: u32,
    repair_due: bool,
}

/// The result of a task of the loop.
enum Done {
    Listed(Result<Listing, String>),
    GatewayStart(Result<(), String>),
}

#[derive(Debug, Default)]
struct Listing {
    units: BTreeMap<String, Changed>,
    kubes: BTreeMap<String, String>,
    gateway: String,
}

/// The reason why the loop ended.
enum End {
    Lost(String),
    /// The receiver of the events was dropped.
    Unheard,
}

impl Watch {
    pub(super) fn new(
        units: Units,
        events: mpsc::Sender<SystemdEvent>,
        notes: mpsc::Receiver<Note>,
        bus: cell::Sender<Option<Connection>>,
        connected: cell::Receiver<bool>,
    ) -> Self {
        Self {
            units,
            events,
            notes,
            bus,
            table: Table::default(),
            gateway: Gateway::default(),
            silence: Silence::default(),
            connected,
            suspicion: Suspicion::default(),
            gateway_active: String::new(),
            gateway_restarts: 0,
            repair_due: false,
        }
    }

    /// Connects, follows systemd, and reconnects with growing pauses.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let reason = match connect().await {
                Ok(bus) => {
                    failures = 0;
                    match self.follow(&bus).await {
                        Err(End::Lost(reason)) => reason,
                        Err(End::Unheard) | Ok(()) => return,
                    }
                }
                Err(err) => format!("D-Bus cannot be reached: {}", words(err)),
            };
            self.bus.send_replace(None);
            self.table.forget();
            self.gateway.lose(Instant::now());
            failures += 1;
            tracing::warn!(
                reason,
                attempt = failures,
                "lost the connection to systemd, will retry"
            );
            if self.events.send(SystemdEvent::Lost(reason)).await.is_err() {
                return;
            }
            let mut over = std::pin::pin!(sleep(pause(failures)));
            loop {
                tokio::select! {
                    () = &mut over => break,
                    note = self.notes.recv() => match note {
                        // The list after the next connect reads every file.
                        Some(Note::Kube(..)) => {}
                        Some(Note::GatewayStart(result)) => self.gateway_start(result),
                        None => return,
                    },
                }
            }
        }
    }

    async fn follow(&mut self, bus: &Connection) -> Result<(), End> {
        let lost = |err| End::Lost(words(err));
        let manager = ManagerProxy::new(bus).await.map_err(lost)?;
        let mut changes =
            MessageStream::for_match_rule(unit_changes().map_err(lost)?, bus, Some(SIGNALS_MAX))
                .await
                .map_err(lost)?;
        let mut forgotten = manager.receive_unit_removed().await.map_err(lost)?;
        let mut reloading = manager.receive_reloading().await.map_err(lost)?;
        let dbus = DBusProxy::new(bus).await.map_err(lost)?;
        let mut owners = dbus
            .receive_name_owner_changed_with_args(&[(0, SERVICE)])
            .await
            .map_err(lost)?;
        manager.subscribe().await.map_err(lost)?;
        self.bus.send_replace(Some(bus.clone()));

        let closed = || End::Lost("the bus closed the connection".to_owned());
        let events = self.events.clone();
        let mut tasks = JoinSet::new();
        let (mut first, mut listing, mut stale) = (true, false, true);
        loop {
            if stale && !listing {
                (stale, listing) = (false, true);
                self.table.begin_list();
                tasks.spawn(list(bus.clone(), self.units.clone(), self.table.loaded()));
            }
            if std::mem::take(&mut self.repair_due) {
                tracing::warn!(
                    restarts = self.gateway_restarts,
                    "the gateway keeps failing: {REPAIR} checks Podman's storage"
                );
                let bus = bus.clone();
                tasks.spawn(async move { Done::GatewayStart(repair(&bus).await) });
            }
            self.listen();
            let (silent, failed) = (self.silence.due(), self.gateway.due());
            tokio::select! {
                message = changes.next() => self.changed(&message.ok_or_else(closed)?.map_err(lost)?),
                signal = forgotten.next() => {
                    let args = signal.as_ref().ok_or_else(closed)?.args().map_err(lost)?;
                    // Sent for every unit in a reload, and for one that systemd has unloaded for good. A list tells
                    // them apart.
                    stale |= args.id == GATEWAY_UNIT || unit_pod(&args.id).is_some();
                }
                signal = reloading.next() => {
                    let begins = signal.as_ref().ok_or_else(closed)?.args().map_err(lost)?.active;
                    stale |= !begins;
                }
                _ = owners.next() => return Err(End::Lost("systemd took a new connection to the bus".to_owned())),
                note = self.notes.recv() => match note {
                    Some(Note::Kube(workload, kube)) => self.table.kube(&workload, kube),
                    Some(Note::GatewayStart(result)) => self.gateway_start(result),
                    None => return Err(End::Unheard),
                },
                Some(done) = tasks.join_next() => match done.map_err(|err| End::Lost(err.to_string()))? {
                    Done::GatewayStart(result) => self.gateway_start(result),
                    Done::Listed(result) => {
                        let Listing { units, kubes, gateway } = result.map_err(End::Lost)?;
                        self.gateway_state(gateway);
                        self.table.finish_list(units, kubes, std::mem::take(&mut first));
                        listing = false;
                    }
                },
                Ok(()) = self.connected.changed() => {}
                () = sleep_until(silent.unwrap_or_else(Instant::now).into()), if silent.is_some() => {
                    let (bus, damaged) = (bus.clone(), self.silent());
                    tasks.spawn(async move { Done::GatewayStart(renew(&bus, damaged).await) });
                }
                () = sleep_until(failed.unwrap_or_else(Instant::now).into()), if failed.is_some() => {
                    self.gateway.begin();
                    let bus = bus.clone();
                    tasks.spawn(async move { Done::GatewayStart(manager::start(&bus, GATEWAY_UNIT).await.map_err(String::from)) });
                }
                permit = events.reserve(), if !first && self.table.has_news() => {
                    let permit = permit.map_err(|_| End::Unheard)?;
                    if let Some(event) = self.table.tell() {
                        permit.send(event);
                    }
                }
            }
        }
    }

    fn gateway_start(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            self.gateway.fail(Instant::now());
            tracing::warn!(reason, "the gateway did not start, will retry");
        }
    }

    fn gateway_state(&mut self, active: String) {
        self.gateway.observe(&active, Instant::now());
        self.gateway_active.clone_from(&active);
        self.suspect();
        self.table.gateway(active);
    }

    fn listen(&mut self) {
        let connected = *self.connected.borrow_and_update();
        self.silence
            .observe(&self.gateway_active, connected, Instant::now());
    }

    /// Records a restart of the gateway. Returns true if the repair of Podman's storage comes first.
    fn silent(&mut self) -> bool {
        let damaged = self.silence.begin() && self.suspicion.arises(Instant::now());
        self.gateway.renew();
        tracing::warn!(
            repair = damaged,
            "{GATEWAY_UNIT} is active but its gateway does not connect: restarting it"
        );
        damaged
    }

    fn suspect(&mut self) {
        let (active, restarts) = (&self.gateway_active, self.gateway_restarts);
        self.repair_due |= self.suspicion.observe(active, restarts, Instant::now());
    }

    fn changed(&mut self, message: &Message) {
        let header = message.header();
        let Some(unit) = header.path().and_then(|path| unit_of_path(path.as_str())) else {
            return;
        };
        let Some((interface, changed)) = read_changed(message) else {
            return;
        };
        if unit == GATEWAY_UNIT {
            if let Some(restarts) = read_restarts(message) {
                self.gateway_restarts = restarts;
                self.suspect();
            }
            if let Some(active) = changed.active.filter(|_| interface == UNIT) {
                self.gateway_state(active);
            }
        } else if let Some(workload) = unit_pod(&unit) {
            self.table.change(workload, changed);
        }
    }
}

/// Stops what is left of the gateway and starts it again.
async fn renew(bus: &Connection, damaged: bool) -> Result<(), String> {
    manager::stop(bus, GATEWAY_UNIT).await?;
    if damaged {
        return repair(bus).await;
    }
    Ok(manager::start(bus, GATEWAY_UNIT).await?)
}

/// Repairs the storage, and then starts the gateway at once, without systemd's pause.
async fn repair(bus: &Connection) -> Result<(), String> {
    manager::start(bus, REPAIR).await?;
    Ok(manager::start(bus, GATEWAY_UNIT).await?)
}

fn read_restarts(message: &Message) -> Option<u32> {
    let signal = PropertiesChanged::from_message(message.clone())?;
    let args = signal.args().ok()?;
    let value = args.changed_properties.get("NRestarts")?;
    u32::try_from(value).ok()
}

fn unit_changes() -> zbus::Result<MatchRule<'static>> {
    MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SERVICE)
        .path_namespace(UNITS)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .build()
}

async fn connect() -> zbus::Result<Connection> {
    zbus::connection::Builder::system()
        .method_timeout(Duration::from_secs(CALL_SECONDS_MAX))
        .build()
        .await
}

/// Reads every unit that systemd has loaded, with its properties unless it is `known`, and every `.kube`.
async fn list(bus: Connection, units: Units, known: BTreeSet<String>) -> Done {
    let read = async {
        let manager = ManagerProxy::new(&bus).await.map_err(words)?;
        let patterns = [UNIT_PATTERN, GATEWAY_UNIT];
        let listed = manager
            .list_units_by_patterns(&[], &patterns)
            .await
            .map_err(words)?;
        let mut listing = Listing {
            gateway: "inactive".to_owned(),
            ..Listing::default()
        };
        for (name, _, _, active, sub, _, path, ..) in listed {
            if name == GATEWAY_UNIT {
                listing.gateway = active;
            } else if let Some(workload) = unit_pod(&name) {
                let changed = if known.contains(workload) {
                    Changed::default()
                } else {
                    manager::properties(&bus, path).await.map_err(words)?
                };
                let changed = Changed {
                    active: Some(active),
                    sub: Some(sub),
                    ..changed
                };
                listing.units.insert(workload.to_owned(), changed);
            }
        }
        listing.kubes = blocking(move || units.kubes())
            .await
            .map_err(|err| err.to_string())?;
        Ok(listing)
    };
    Done::Listed(read.await)
}

/// The unit name in an object path, in which systemd writes each byte that is no letter or digit as `_xx`.
fn unit_of_path(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNITS)?.strip_prefix('/')?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = rest.next() {
        name.push(if byte == b'_' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(rest.next()?)? * 16 + digit(rest.next()?)?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(name).ok()
}

fn read_changed(message: &Message) -> Option<(String, Changed)> {
    let signal = PropertiesChanged::from_message(message.clone())?;
    let args = signal.args().ok()?;
    let text = |name| {
        args.changed_properties
            .get(name)
            .and_then(|value| <&str>::try_from(value).ok())
            .map(str::to_owned)
    };
    let time = |value: &Variant<'_>| u64::try_from(value).ok();
    let changed = match args.interface_name.as_str() {
        UNIT => Changed {
            active: text("ActiveState"),
            sub: text("SubState"),
            started: args
                .changed_properties
                .get("ActiveEnterTimestamp")
                .and_then(time)
                .map(|time| time != 0),
            ..Changed::default()
        },
        UNIT_SERVICE => Changed {
            result: text("Result"),
            status: text("StatusText"),
            ..Changed::default()
        },
        _ => return None,
    };
    Some((args.interface_name.to_string(), changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gives_back_the_unit_that_systemd_made_it_from() {
        for (path, unit) in [
            (
                "/org/freedesktop/systemd1/unit/beemesh_2dpod_2dshop_5fweb_2ev2_2eservice",
                Some("beemesh-pod-shop_web.v2.service"),
            ),
            (
                "/org/freedesktop/systemd1/unit/_2d_2emount",
                Some("-.mount"),
            ),
            ("/org/freedesktop/systemd1/unit/broken_2", None),
            ("/org/freedesktop/systemd1/job/7", None),
        ] {
            assert_eq!(unit_of_path(path).as_deref(), unit, "{path}");
        }
    }
}
