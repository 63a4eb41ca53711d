//! Two network namespaces with a cable between them, gone when dropped: nothing stands between client and server.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::state::State;
use crate::{command, netns, say};

pub(super) struct Pair {
    pub(super) client: String,
    pub(super) server: String,
    /// The server's.
    pub(super) address: Ipv4Addr,
    state: State,
}

impl Pair {
    pub(super) fn build(state: &State) -> Result<Self> {
        // An address that two namespaces have could not be named.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = |host| Ipv4Addr::new(10, high, low, host);
        let pair = Self {
            client: format!("rwb{high:02x}{low:02x}c"),
            server: format!("rwb{high:02x}{low:02x}s"),
            address: address(2),
            state: state.clone(),
        };
        for name in pair.namespaces() {
            pair.state.add_namespace(name)?;
            command::run(&format!("ip netns add {name}"))?;
            command::run(&format!("ip -n {name} link set lo up"))?;
            // Room for as many connections as are wanted, one after the other and at a time.
            netns::sysctl(name, "net.ipv4.ip_local_port_range", "1024 65000")?;
            netns::sysctl(name, "net.core.somaxconn", "4096")?;
        }
        let Self { client, server, .. } = &pair;
        command::run(&format!(
            "ip -n {client} link add eth0 type veth peer name eth0 netns {server}"
        ))?;
        for (name, host) in [(client, 1), (server, 2)] {
            let address = address(host);
            command::run(&format!("ip -n {name} address add {address}/24 dev eth0"))?;
            command::run(&format!("ip -n {name} link set eth0 up"))?;
        }
        Ok(pair)
    }

    fn namespaces(&self) -> [&str; 2] {
        [&self.client, &self.server]
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in self.namespaces() {
            if netns::path(name).exists()
                && let Err(error) = command::run(&format!("ip netns delete {name}"))
            {
                say::progress(format_args!("{error:#}"));
                continue;
            }
            if let Err(error) = self.state.remove_namespace(name) {
                say::progress(format_args!("{error:#}"));
            }
        }
    }
}
