//! Limits how fast this host accepts TCP connections.
//!
//! Shell inside libp2p's TCP transport: it stops polling for connections once a window's number is used up. Further
//! connections wait in the kernel, which drops those that exceed the backlog. The filter of [`crate::sieve`] is better
//! because it knows members. But some kernels require CAP_NET_ADMIN for a filter on TCP, which the agent lacks.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::sieve::WINDOW;

#[derive(Debug)]
pub(super) struct Paced<T> {
    inner: T,
    max: u32,
    left: u32,
    /// Each tick allows `max` more connections.
    windows: Interval,
}

impl<T> Paced<T> {
    /// Accepts at most `max` connections in a window.
    pub(super) fn new(inner: T, max: u32) -> Self {
        let mut windows = interval(WINDOW);
        windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            inner,
            max,
            left: max,
            windows,
        }
    }
}

impl<T: Transport + Unpin> Transport for Paced<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        if self.left == 0 {
            ready!(self.windows.poll_tick(context));
            self.left = self.max;
        }
        let event = ready!(Pin::new(&mut self.inner).poll(context));
        if matches!(event, TransportEvent::Incoming { .. }) {
            self.left -= 1;
        }
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use libp2p::tcp;
    use tokio::{net::TcpStream, time::Instant};

    use super::*;

    #[tokio::test]
    async fn no_more_are_accepted_in_a_window_and_the_rest_later() {
        let inner = tcp::tokio::Transport::new(tcp::Config::default());
        let mut paced = Paced::new(inner, 4);
        let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        paced.listen_on(ListenerId::next(), any).unwrap();
        let mut next = async || poll_fn(|context| Pin::new(&mut paced).poll(context)).await;
        let TransportEvent::NewAddress { listen_addr, .. } = next().await else {
            panic!("it listens");
        };
        let port = listen_addr.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(
                TcpStream::connect(("127.0.0.1", port.unwrap()))
                    .await
                    .unwrap(),
            );
        }
        let begun = Instant::now();
        for _ in 0..20 {
            assert!(matches!(next().await, TransportEvent::Incoming { .. }));
        }
        // Four connections come at once, four more with the interval's first tick, which is immediate, and four after
        // each of three windows. tokio counts a tick that is up to 5 ms late as in time, so the next one follows that
        // much earlier.
        let least = 3 * WINDOW - Duration::from_millis(5);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        let none = tokio::time::timeout(Duration::from_millis(10), next()).await;
        assert!(none.is_err());
    }
}
