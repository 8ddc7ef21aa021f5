//! Which names of this server its HTTP door answers to. A page in a browser of this machine can have a name of its own
//! resolve to this address, and would then be allowed to read what the door answers; but the browser tells the name.

use super::http::count;
use super::routes::{App, PLAIN};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Of a name that is shown, at most so much.
const SHOWN_CHARS_MAX: usize = 100;
/// Says which page a browser's request comes from.
const SITE: &str = "sec-fetch-site";

/// The names. Addresses are no names: nobody can make one resolve elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Whether they are looked at.
    checked: bool,
    /// Beside `localhost`, in lower case.
    more: Arc<[String]>,
}

impl Names {
    /// Those of a server that listens at `host` and is told of `more`. Where others reach it they do so by names that
    /// nobody here knows, so there all are taken unless some were told.
    pub(crate) fn new(host: IpAddr, more: &[String]) -> Self {
        let more: Arc<[String]> = more.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { checked: host.is_loopback() || !more.is_empty(), more }
    }

    fn takes(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.more.contains(&name)
    }

    /// Looks at every name that a request gives for this server.
    ///
    /// # Errors
    /// What was found that is none of them.
    fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        if !self.checked {
            return Ok(());
        }
        let hosts = headers.get_all(header::HOST).iter().map(|value| value.as_bytes().escape_ascii().to_string());
        let told: Vec<String> = uri.authority().map(ToString::to_string).into_iter().chain(hosts).collect();
        // Browsers always tell it. So must everybody since HTTP/1.1.
        if told.is_empty() && version > Version::HTTP_10 {
            return Err("no Host".to_owned());
        }
        let is_taken = |text: &str| {
            let authority = text.parse::<Authority>().ok().filter(|_| !text.contains('@'));
            authority.is_some_and(|it| self.takes(it.host()))
        };
        match told.iter().find(|text| !is_taken(text)) {
            Some(wrong) => Err(format!("Host \"{}\"", wrong.chars().take(SHOWN_CHARS_MAX).collect::<String>())),
            None => Ok(()),
        }
    }

    fn allowed(&self) -> String {
        let more: String = self.more.iter().map(|name| format!(", {name}")).collect();
        format!("an IP address, localhost{more}")
    }
}

/// Lets a request through if it is meant for this server, and not made by a page of another site: that page could not read
/// the answer, but it could begin traces.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let refused = |status: StatusCode, why: String| {
        count(&app.door.requests);
        (status, PLAIN, format!("{why}\n")).into_response()
    };
    if let Err(found) = app.names.check(request.version(), request.uri(), request.headers()) {
        let allowed = app.names.allowed();
        let why =
            format!("{found} is none of this server's names: {allowed}; listen.http_names (--http-names) adds others");
        return refused(StatusCode::MISDIRECTED_REQUEST, why);
    }
    let site = request.headers().get(SITE).map_or(&b""[..], |value| value.as_bytes());
    if request.uri().path() == "/trace" && (site == b"cross-site" || site == b"same-site") {
        return refused(StatusCode::FORBIDDEN, "a page of another site must not begin a trace".to_owned());
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn check(names: &Names, uri: &str, hosts: &[&str]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        names.check(Version::HTTP_11, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn on_loopback_addresses_and_localhost_are_taken_and_other_names_are_named() {
        for here in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), "127.3.2.1".parse().unwrap()] {
            let names = Names::new(here, &[]);
            for host in
                ["127.0.0.1", "10.0.0.7:1", "[::1]", "[fe80::1]:7480", "localhost", "LocalHost:80", "localhost.:1"]
            {
                assert_eq!(check(&names, "/metrics", &[host]), Ok(()), "{host}");
            }
            for host in [
                "evil.example",
                "evil.example:7480",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "evillocalhost",
                "localhost@evil.example",
                "evil@127.0.0.1",
                "",
                "[localhost]",
                "a b",
                "127.1",
            ] {
                let found = check(&names, "/metrics", &[host]);
                assert_eq!(found, Err(format!("Host \"{host}\"")));
            }
        }
    }

    #[test]
    fn every_name_that_a_request_gives_counts() {
        let names = Names::new(IpAddr::V4(Ipv4Addr::LOCALHOST), &[]);
        assert!(check(&names, "/metrics", &["localhost", "evil"]).unwrap_err().contains("evil"));
        assert!(check(&names, "http://evil:1/metrics", &["localhost"]).unwrap_err().contains("evil:1"));
        assert_eq!(check(&names, "http://localhost/metrics", &["localhost"]), Ok(()));
        assert_eq!(check(&names, "/metrics", &[]).unwrap_err(), "no Host");
        assert_eq!(names.check(Version::HTTP_10, &Uri::from_static("/metrics"), &HeaderMap::new()), Ok(()));
        let long = check(&names, "/metrics", &["a".repeat(4_000).as_str()]).unwrap_err();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn more_names_are_taken_where_they_were_told_and_elsewhere_all_unless_some_were() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let told = Names::new(loopback, &["Mill.example".to_owned()]);
        assert_eq!(check(&told, "/", &["mill.EXAMPLE:7480"]), Ok(()));
        assert!(check(&told, "/", &["other.example"]).is_err());
        assert_eq!(told.allowed(), "an IP address, localhost, mill.example");
        let elsewhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(check(&Names::new(elsewhere, &[]), "/", &["other.example"]), Ok(()));
        assert!(check(&Names::new(elsewhere, &["mill".to_owned()]), "/", &["other.example"]).is_err());
    }
}
