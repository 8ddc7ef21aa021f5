//! Listening sockets: the main port, shared by all shards, and a port of each shard.

use crate::config::Listen;
use crate::exit::Failed;
use gristmill_client::clock::now;
use gristmill_io::listen::listen;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::Duration;

/// From the main port to that of HTTP, unless it is set: behind the ports of the most shards.
const HTTP_PORT_OFFSET: u16 = 80;

/// How long a port that is in use is waited for. The kernel takes the rings of a process that was killed down after the
/// process is gone, and they hold its listeners, a second and more while many connections come and go: whoever starts the
/// server again at once finds its own ports in use.
const IN_USE_WAIT: Duration = Duration::from_secs(3);
/// Between two looks at such a port.
const IN_USE_PAUSE: Duration = Duration::from_millis(20);

/// The listening sockets of a server.
#[derive(Debug)]
pub(super) struct Doors {
    /// The port on which every shard listens.
    pub(super) main_port: u16,
    /// The port of each shard.
    pub(super) shard_ports: Vec<u16>,
    /// Per shard: its share of the main port, and its own.
    pub(super) sockets: Vec<Vec<TcpListener>>,
    /// The port of HTTP.
    pub(super) http_port: u16,
    /// Its listener.
    pub(super) http: TcpListener,
}

impl Doors {
    /// Opens them. Connections wait in the kernel until the shards serve.
    ///
    /// # Errors
    /// A port is in use or not allowed, or others can reach the address and nobody said that they may.
    pub(super) fn open(config: &Listen, shards: usize) -> Result<Self, Failed> {
        check_host(config)?;
        let last = usize::from(config.port_base) + shards.max(usize::from(HTTP_PORT_OFFSET));
        if last > usize::from(u16::MAX) {
            let message = format!(
                "port_base {} with {shards} shards and HTTP {HTTP_PORT_OFFSET} above it ends at port {last}, 65535 is the last",
                config.port_base
            );
            return Err(Failed::configuration(message));
        }
        let mut main_port = config.port_base;
        let (mut shard_ports, mut sockets) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            // A shard's own port is never shared, so a second server on the same ports is refused here.
            let wanted = if config.port_base == 0 { 0 } else { config.port_base + 1 + shard as u16 };
            let own = open_one(config, wanted, false)?;
            let main = open_one(config, main_port, true)?;
            main_port = port_of(&main)?;
            shard_ports.push(port_of(&own)?);
            sockets.push(vec![main, own]);
        }
        let above = if config.port_base == 0 { 0 } else { config.port_base + HTTP_PORT_OFFSET };
        let http = open_one(config, config.http_port.unwrap_or(above), false)?;
        let http_port = port_of(&http)?;
        Ok(Self { main_port, shard_ports, sockets, http_port, http })
    }
}

/// Until there is encryption and authentication, only this machine may connect, unless the operator insists.
fn check_host(config: &Listen) -> Result<(), Failed> {
    if config.host.is_loopback() || config.insecure {
        return Ok(());
    }
    Err(Failed::configuration(format!(
        "{} can be reached by others, and this server has neither encryption nor authentication: listen on 127.0.0.1, or \
         say --insecure-listen where the network itself is safe",
        config.host
    )))
}

fn open_one(config: &Listen, port: u16, shared: bool) -> Result<TcpListener, Failed> {
    let address = SocketAddr::new(config.host, port);
    let deadline = now() + IN_USE_WAIT;
    let opened = loop {
        match listen(address, shared) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && now() < deadline => sleep(IN_USE_PAUSE),
            opened => break opened,
        }
    };
    opened.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "; another program has it: choose other ports with --port-base, 0 takes free ones",
            ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        Failed::configuration(format!("cannot listen on {address}: {error}{hint}"))
    })
}

fn port_of(socket: &TcpListener) -> Result<u16, Failed> {
    let address = socket.local_addr();
    address.map(|it| it.port()).map_err(|error| Failed::configuration(format!("a listener has no address: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn on(host: &str, port_base: u16, insecure: bool) -> Listen {
        Listen { host: host.parse().unwrap(), port_base, insecure, ..Config::default().listen }
    }

    #[test]
    fn free_ports_are_shared_as_they_should_be() {
        let doors = Doors::open(&on("127.0.0.1", 0, false), 3).unwrap();
        assert_eq!(doors.sockets.len(), 3);
        assert!(doors.sockets.iter().all(|pair| pair[0].local_addr().unwrap().port() == doors.main_port));
        let mut ports = doors.shard_ports.clone();
        ports.extend([doors.main_port, doors.http_port]);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 5, "all different");
    }

    #[test]
    fn a_second_server_on_the_same_ports_is_refused() {
        let first = Doors::open(&on("127.0.0.1", 0, false), 1).unwrap();
        let base = first.shard_ports[0] - 1;
        let refused = Doors::open(&on("127.0.0.1", base, false), 1).unwrap_err();
        assert!(refused.message.contains("--port-base"), "{refused}");
    }

    #[test]
    fn a_port_that_becomes_free_is_waited_for() {
        // Free ports are taken by whoever asks, also by tests beside this one, and then the others of a base may be in use.
        let second = (0..10).find_map(|_| {
            let first = Doors::open(&on("127.0.0.1", 0, false), 1).unwrap();
            let base = first.shard_ports[0] - 1;
            let going = std::thread::spawn(move || {
                sleep(Duration::from_millis(200));
                drop(first);
            });
            let second = Doors::open(&on("127.0.0.1", base, false), 1);
            going.join().unwrap();
            second.ok().map(|doors| (doors.shard_ports, base))
        });
        let (ports, base) = second.expect("one of ten bases has all of its ports free");
        assert_eq!(ports, [base + 1]);
    }

    #[test]
    fn others_are_kept_out_unless_it_is_said() {
        assert_eq!(Config::default().listen.host.to_string(), "127.0.0.1");
        assert!(Doors::open(&on("0.0.0.0", 0, false), 1).unwrap_err().message.contains("--insecure-listen"));
        assert!(Doors::open(&on("0.0.0.0", 0, true), 1).is_ok());
        assert!(Doors::open(&on("127.0.0.1", 65_530, false), 10).unwrap_err().message.contains("65610"));
    }
}
