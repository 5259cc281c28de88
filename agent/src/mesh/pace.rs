//! How fast connections are accepted.
//!
//! Shell inside libp2p's transport for TCP: does not ask for more of them before their time. What waits does so in the kernel, which drops
//! what is too much. The filter of [`crate::sieve`] is better, for it knows members, but some kernels keep it for the administrator of the
//! network, which the agent is not.

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

/// See the module.
#[derive(Debug)]
pub(super) struct Paced<T> {
    inner: T,
    max: u32,
    left: u32,
    /// When there are more again.
    windows: Interval,
}

impl<T> Paced<T> {
    /// So many connections in a window.
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
        // Four at once, four when the first window is over that was not waited for, and then each four after a window. tokio counts a tick
        // that is up to 5 ms late as one in time, so that the next one follows so much earlier.
        let least = 3 * WINDOW - Duration::from_millis(5);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        let none = tokio::time::timeout(Duration::from_millis(10), next()).await;
        assert!(none.is_err());
    }
}
