//! Keeps what strangers send to the mesh's ports within the limits.
//!
//! Shell: measures this process's processor time and the kernel's drops, and loads the rules of [`Arrivals`] into the
//! kernel.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::arrivals::Arrivals;
use crate::sieve::{Kind, Rules, Sieve, WINDOW, Window, busy, processor_time};

#[derive(Debug)]
pub(super) struct Ward {
    /// The filters for QUIC and for TCP; `None` if no socket of that kind was found.
    sieves: [Option<Sieve>; 2],
    windows: Interval,
    began: Instant,
    computed: Duration,
}

impl Ward {
    /// Filters the sockets of this process that listen on these addresses and on the mesh's `port`. A socket may have
    /// moved to that port after libp2p had bound another.
    pub(super) fn new(listening: &BTreeSet<Multiaddr>, port: u16) -> Self {
        let mut windows = interval(WINDOW);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            sieves: sieves(listening, port),
            windows,
            began: Instant::now(),
            computed: processor_time(),
        }
    }

    /// Filters the sockets that listen on `port` now. The rules follow at the end of the window.
    pub(super) fn renew(&mut self, port: u16) {
        for sieve in self.sieves.iter_mut().flatten() {
            sieve.keep_to(Rules::default());
        }
        self.sieves = sieves(&BTreeSet::new(), port);
    }

    /// Waits for the end of a window.
    pub(super) async fn window_over(&mut self) {
        self.windows.tick().await;
    }

    /// Judges the window that has ended.
    pub(super) fn turn(&mut self, arrivals: &mut Arrivals) {
        let (now, computed) = (Instant::now(), processor_time());
        let time = now.duration_since(std::mem::replace(&mut self.began, now));
        let since = computed.saturating_sub(std::mem::replace(&mut self.computed, computed));
        let busy = busy(since, time);
        let [quic, tcp] = self.sieves.each_mut().map(|sieve| Window {
            dropped: sieve.as_mut().map_or(0, Sieve::dropped),
            busy,
        });
        arrivals.turn(quic, tcp, now);
    }

    /// Loads changed rules into the kernel.
    pub(super) fn watch(&mut self, arrivals: &mut Arrivals) {
        for (sieve, rules) in self
            .sieves
            .iter_mut()
            .zip(arrivals.changed().into_iter().flatten())
        {
            if let Some(sieve) = sieve {
                sieve.keep_to(rules);
            }
        }
    }
}

fn sieves(listening: &BTreeSet<Multiaddr>, port: u16) -> [Option<Sieve>; 2] {
    let ports = |wanted: Kind| {
        let parts = listening.iter().flat_map(Multiaddr::iter);
        let ports = parts.filter_map(move |part| match part {
            Protocol::Udp(port) if wanted == Kind::Quic => Some(port),
            Protocol::Tcp(port) if wanted == Kind::Tcp => Some(port),
            _ => None,
        });
        ports
            .chain([port])
            .collect::<BTreeSet<u16>>()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let sieve = |kind| match Sieve::on_ports(kind, &ports(kind)) {
        Ok(sieve) if sieve.len() > 0 => Some(sieve),
        Ok(_) => {
            tracing::warn!(
                ?kind,
                "the sockets of the mesh were not found, so no filter limits a flood of strangers"
            );
            None
        }
        Err(error) => {
            tracing::warn!(?kind, %error, "the sockets of the mesh were not found, so no filter limits a flood of strangers");
            None
        }
    };
    [sieve(Kind::Quic), sieve(Kind::Tcp)]
}
