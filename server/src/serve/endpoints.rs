//! The file `endpoints.json` of a data directory: where its running server is to be found.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

/// Name of the file.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// What it says. Field names are API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Address of all ports.
    pub host: IpAddr,
    /// The port on which every shard listens.
    pub port: u16,
    /// The port of each shard.
    pub shard_ports: Vec<u16>,
    /// The port of HTTP: metrics and health.
    pub http_port: u16,
    /// Number of the server's process.
    pub pid: u32,
    /// Id of the data directory, hexadecimal.
    pub data_directory: String,
    /// Socket of workers, a file of the data directory.
    #[serde(default)]
    pub worker_socket: String,
    /// The file of the data directory with the token that they say.
    #[serde(default)]
    pub worker_token: String,
}

impl Endpoints {
    /// Puts the file into the data directory, whole or not at all.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        let fresh = root.join(format!("{ENDPOINTS_FILE}.new"));
        let mut file = File::create(&fresh)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&fresh, root.join(ENDPOINTS_FILE))
    }

    /// What the file of a data directory says.
    ///
    /// # Errors
    /// It is not there, or is no such file.
    pub fn read(root: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(root.join(ENDPOINTS_FILE))?;
        serde_json::from_str(&text).map_err(io::Error::from)
    }

    /// Takes the file away: no server runs here any more.
    ///
    /// # Errors
    /// What the operating system says; that there is no file is fine.
    pub fn remove(root: &Path) -> io::Result<()> {
        match fs::remove_file(root.join(ENDPOINTS_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_goes() {
        let root = std::env::temp_dir().join(format!("gristmill-endpoints-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let host = "127.0.0.1".parse().unwrap();
        let data_directory = "00ff".to_owned();
        let endpoints = Endpoints {
            host,
            port: 7_400,
            shard_ports: vec![7_401, 7_402],
            http_port: 7_480,
            pid: 9,
            data_directory,
            worker_socket: "workers.sock".to_owned(),
            worker_token: "worker.token".to_owned(),
        };
        endpoints.write(&root).unwrap();
        assert_eq!(Endpoints::read(&root).unwrap(), endpoints);
        Endpoints::remove(&root).unwrap();
        Endpoints::remove(&root).unwrap();
        assert_eq!(Endpoints::read(&root).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&root).unwrap();
    }
}
