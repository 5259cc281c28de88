//! The faults.

use std::{sync::Arc, time::Duration};

use beemesh_protocol::HostId;
use tokio::time::sleep;

use super::{FLUSH, LATENCY, World, name};
use crate::raft::Fault;

impl World {
    /// Causes one fault for a while.
    pub(super) async fn strike(self: &Arc<Self>) {
        let hosts = self.hosts();
        let one = self.chance(|chance| *chance.pick(&hosts).expect("a host"));
        let victim = self
            .leader()
            .filter(|_| self.chance(|c| c.below(2)) == 0)
            .unwrap_or(one);
        let others: Vec<HostId> = hosts.into_iter().filter(|host| *host != victim).collect();
        let other = self.chance(|chance| *chance.pick(&others).expect("another host"));
        let long = self.chance(|chance| chance.millis(100, 5000));
        match self.chance(|chance| chance.below(12)) {
            0 => self.away(victim, false, long / 10).await,
            1 | 2 => self.away(victim, true, long).await,
            3 => {
                self.say(&format!("{} is cut off", name(victim)));
                self.checks.trouble(victim, false);
                for other in others {
                    self.net.cut(victim, other);
                    self.net.cut(other, victim);
                }
                self.healed_after(long).await;
            }
            4 => {
                self.say(&format!("{} does not reach {}", name(victim), name(other)));
                self.apart([victim, other]);
                self.net.cut(victim, other);
                self.healed_after(long).await;
            }
            5 => {
                self.say(&format!("{} and {} are apart", name(victim), name(other)));
                self.apart([victim, other]);
                self.net.cut(victim, other);
                self.net.cut(other, victim);
                self.healed_after(long).await;
            }
            6 => {
                self.say(&format!("{}'s disk is slow", name(victim)));
                let disk = self.machines[&victim].disk.lock().unwrap().clone();
                self.checks.trouble(victim, false);
                disk.set_flush(long / 4);
                sleep(long).await;
                disk.set_flush(FLUSH);
                self.checks.trouble(victim, true);
            }
            7 => {
                let fault = self.chance(|c| *c.pick(&[Fault::Error, Fault::Short]).expect("one"));
                self.say(&format!("{}'s disk: {fault:?}", name(victim)));
                self.machines[&victim].disk.lock().unwrap().fail_next(fault);
                sleep(long / 4).await;
            }
            8 => {
                self.say("the network is slow");
                self.apart(self.hosts());
                self.net.set_latency(long / 8);
                sleep(long).await;
                self.net.set_latency(LATENCY);
                self.checks.calm(&self.up());
            }
            9 => self.shorten(victim).await,
            _ => drop(self.join().await),
        }
        // Some faults overlap with others.
        if self.chance(|chance| chance.below(2)) == 0 {
            sleep(long / 2).await;
        }
    }

    async fn healed_after(self: &Arc<Self>, time: Duration) {
        if self.chance(|chance| chance.below(3)) == 0 {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                sleep(time).await;
                world.net.heal();
                world.checks.calm(&world.up());
                world.say("healed");
            });
        } else {
            sleep(time).await;
            self.net.heal();
            self.checks.calm(&self.up());
            self.say("healed");
        }
    }

    /// Records that these hosts do not reach others, or only slowly.
    fn apart(&self, hosts: impl IntoIterator<Item = HostId>) {
        for host in hosts {
            self.checks.trouble(host, false);
        }
    }

    /// Stops a gateway or a whole machine for a while.
    async fn away(self: &Arc<Self>, host: HostId, power: bool, time: Duration) {
        self.end(host, power).await;
        let world = Arc::clone(self);
        let back = async move {
            sleep(time).await;
            world.begin(host).await;
        };
        if self.chance(|chance| chance.below(3)) == 0 {
            tokio::spawn(back);
        } else {
            back.await;
        }
    }

    /// Makes a host take a snapshot and purge the entries before it.
    async fn shorten(&self, host: HostId) {
        let up = self.net.up();
        let Some((_, node, _)) = up.iter().find(|(up, ..)| *up == host) else {
            return;
        };
        self.say(&format!("{} takes a snapshot", name(host)));
        node.shorten().await;
    }
}
