//! Listening sockets.

use crate::sys;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Listens on an address. With `share_port` the listeners of several shards may take the same address, and the kernel
/// spreads connections over them; without it a second one is refused. Port 0 takes a free one.
///
/// # Errors
/// What the operating system says: the address is in use, is not ours, or is not allowed.
pub fn listen(address: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    sys::listen(address, share_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_only_if_asked() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let first = match listen(local.parse().unwrap(), true) {
                Ok(first) => first,
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && local.starts_with('[') => continue,
                Err(error) => panic!("{local}: {error}"),
            };
            let address = first.local_addr().unwrap();
            assert_ne!(address.port(), 0);
            listen(address, true).unwrap();
            let refused = listen(address, false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
