//! `gristmill trace`: where the time of requests goes.

use super::connect::time;
use super::output::{Columns, Format, Output, Printer, grouped};
use crate::exit::{Exit, Failed};
use crate::serve::Endpoints;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where HTTP is when nothing else is said.
const ADDRESS_DEFAULT: &str = "127.0.0.1:7480";
/// Most bytes of an answer: a thousand requests with long keys have less.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What the server may take beyond the trace itself.
const SPARE: Duration = Duration::from_secs(10);

/// Arguments of `trace`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long: seconds, or such as 500ms or 5s; 45 seconds at most.
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = "5s")]
    time: f64,
    /// Only requests about this app.
    #[arg(long, value_name = "APP")]
    app: Option<String>,
    /// Only requests that took at least this long, such as 1ms or 300us.
    #[arg(long, value_name = "TIME", value_parser = time)]
    slower_than: Option<f64>,
    /// Follow one request of so many: a trace of all of them slows down a server under full load.
    #[arg(long, value_name = "N", default_value_t = 1)]
    one_of: u32,
    /// Show so many of the slowest.
    #[arg(long, value_name = "N", default_value_t = 20)]
    slowest: u32,
    /// Address of the server's HTTP port; 127.0.0.1:7480 if neither this nor --data is given.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "data")]
    http: Option<String>,
    /// Data directory of a server that runs on this machine; its endpoints.json says where its HTTP port is.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Traces, and prints what was found. The trace ends when this process does.
///
/// # Errors
/// The server does not answer, or another trace is on.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let address = address(arguments)?;
    let found = ask(&address, &query(arguments), Duration::from_secs_f64(arguments.time) + SPARE)?;
    let mut printer = Printer::new();
    if arguments.output.output == Format::Json {
        printer.json(&found)?;
        return printer.flush();
    }
    show(&found, &mut printer)?;
    printer.flush()
}

fn address(arguments: &Arguments) -> Result<String, Failed> {
    let Some(data) = &arguments.data else {
        return Ok(arguments.http.clone().unwrap_or_else(|| ADDRESS_DEFAULT.to_owned()));
    };
    let endpoints = Endpoints::read(data).map_err(|error| {
        let message = format!(
            "no server runs over {}: its endpoints.json: {error}\n  start one with: gristmill serve --data {}",
            data.display(),
            data.display()
        );
        Failed::new(Exit::Unreachable, message)
    })?;
    Ok(SocketAddr::new(endpoints.host, endpoints.http_port).to_string())
}

fn query(arguments: &Arguments) -> String {
    let mut query = format!("seconds={}&one_of={}&slowest={}", arguments.time, arguments.one_of, arguments.slowest);
    if let Some(slower) = arguments.slower_than {
        query += &format!("&slower_micros={}", (slower * 1e6).ceil());
    }
    if let Some(app) = &arguments.app {
        // As a query has it: everything but letters and digits by its number.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let app: String =
            app.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") }).collect();
        query += &format!("&app={app}");
    }
    query
}

fn ask(address: &str, query: &str, limit: Duration) -> Result<Value, Failed> {
    let unreachable = |error: String| {
        let message = format!(
            "the server's HTTP port at {address} cannot be reached: {error}\n  --data DIR finds that of a server on this \
             machine, --http HOST:PORT names it"
        );
        Failed::new(Exit::Unreachable, message)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::new(Exit::Internal, error.to_string()))?;
    let (status, text) = runtime
        .block_on(async { tokio::time::timeout(limit, get(address, query)).await })
        .map_err(|_| Failed::new(Exit::TimeOut, format!("no answer of {address} within {} s", limit.as_secs())))?
        .map_err(unreachable)?;
    match status {
        StatusCode::OK => serde_json::from_str(&text)
            .map_err(|error| Failed::new(Exit::Internal, format!("the server's answer is no JSON: {error}"))),
        StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST => {
            Err(Failed::new(Exit::Usage, text.trim().to_owned()))
        }
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => {
            Err(Failed::new(Exit::TimeOut, format!("{}\n  try again later", text.trim())))
        }
        other => Err(Failed::new(Exit::Internal, format!("{address} answers {other}: {}", text.trim()))),
    }
}

async fn get(address: &str, query: &str) -> Result<(StatusCode, String), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| told(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    tokio::spawn(connection);
    let request = Request::get(format!("/trace?{query}"))
        .header(header::HOST, address)
        .body(Body::empty())
        .map_err(|error| told(&error))?;
    let response = sender.send_request(request).await.map_err(|error| told(&error))?;
    let status = response.status();
    let bytes = to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await.map_err(|error| told(&error))?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn show(found: &Value, printer: &mut Printer) -> Result<(), Failed> {
    let number = |name: &str| found[name].as_u64().unwrap_or(0);
    printer.line(&format!(
        "{} requests in {} s, {} followed to their end, {} unfinished",
        grouped(number("requests")),
        found["seconds"],
        grouped(number("followed")),
        grouped(number("unfinished")),
    ))?;
    if number("not_followed_for_room") > 0 {
        let line = format!(
            "{} more were not followed for want of room: --one-of N follows fewer, evenly",
            grouped(number("not_followed_for_room"))
        );
        printer.line(&line)?;
    }
    if number("silent_shards") > 0 {
        printer.line(&format!("{} shards did not answer", number("silent_shards")))?;
    }
    printer.line("")?;
    let mut columns = Columns::new(&["stage", "count", "p50 us", "p99 us", "p99.9 us", "max us"]);
    for row in rows(found, "stages") {
        let micros = |name: &str| format!("{:.1}", row[name].as_f64().unwrap_or(0.0));
        columns.row(vec![
            text(row, "stage"),
            grouped(row["count"].as_u64().unwrap_or(0)),
            micros("p50_us"),
            micros("p99_us"),
            micros("p999_us"),
            micros("max_us"),
        ]);
    }
    printer.table(&columns)?;
    let slowest = rows(found, "slowest");
    if !slowest.is_empty() {
        printer.line("")?;
        printer.line("slowest, with the microseconds of each stage:")?;
    }
    slowest.iter().try_for_each(|span| printer.line(&slow(span)))
}

fn slow(span: &Value) -> String {
    let steps: Vec<String> = rows(span, "steps")
        .iter()
        .map(|step| format!("{} {:.1}", text(step, "stage"), step["us"].as_f64().unwrap_or(0.0)))
        .collect();
    let place = match (text(span, "app").as_str(), text(span, "name").as_str()) {
        ("", _) => String::new(),
        (app, "") => format!(" {app}"),
        (app, name) => format!(" {app}/{name} {:?}", text(span, "key")),
    };
    format!(
        "{:>10.1}  {}{place}  (shard {}, connection {}, correlation {}): {}",
        span["total_us"].as_f64().unwrap_or(0.0),
        text(span, "operation"),
        span["shard"],
        span["connection"],
        span["correlation"],
        steps.join(", ")
    )
}

fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slow_request_is_one_line_that_names_it() {
        let span = json!({"shard": 1, "connection": 7, "correlation": 9, "operation": "put", "app": "shop",
            "name": "carts", "key": "k", "total_us": 1234.56, "steps": [{"stage": "turn", "us": 2.04}, {"stage": "sent", "us": 3.0}]});
        assert_eq!(
            slow(&span),
            "    1234.6  put shop/carts \"k\"  (shard 1, connection 7, correlation 9): turn 2.0, sent 3.0"
        );
    }
}
