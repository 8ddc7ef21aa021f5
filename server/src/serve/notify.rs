//! Tells systemd how the server is, where a unit of `Type=notify` started it: a datagram to the socket that
//! `NOTIFY_SOCKET` names.

use crate::messages::target;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// All shards serve.
pub(super) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}\n"));
}

/// The stop has begun.
pub(super) fn stopping() {
    tell("STOPPING=1\n");
}

fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(target: target!(), "systemd cannot be told at {}: {error}", socket.display());
    }
}

/// A name that begins with `@` is in the abstract namespace, any other is a path.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_names_are_told() {
        let path = std::env::temp_dir().join(format!("gristmill-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("gristmill-notify-{}", std::process::id());
        let abstract_one = SocketAddr::from_abstract_name(&name).and_then(|it| UnixDatagram::bind_addr(&it)).unwrap();
        let mut buffer = [0; 64];
        for (socket, name) in [(by_path, path.as_os_str().to_owned()), (abstract_one, format!("@{name}").into())] {
            send(&name, "READY=1\n").unwrap();
            let got = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..got], b"READY=1\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str(), "READY=1\n").is_err(), "nobody listens");
    }
}
