//! What the HTTP door answers.

use super::board::Board;
use super::collect::Collector;
use super::http::{Door, count};
use super::metrics::{CONTENT_TYPE, Scrape};
use super::names::{Names, guard};
use super::traces::{Asked, Traces};
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{self, HeaderName};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// What requests are answered from.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) board: Arc<Board>,
    pub(super) collector: Arc<Collector>,
    pub(super) door: Arc<Door>,
    pub(super) traces: Traces,
    pub(super) names: Names,
}

/// Of answers for people.
pub(super) const PLAIN: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// All routes.
pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/trace", get(trace))
        .fallback(nothing)
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn metrics(State(app): State<App>) -> Response {
    count(&app.door.requests);
    let known = app.collector.collect().await;
    match Scrape::take(&app.board, known, &app.door).text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("the metrics cannot be written: {error}\n"))
            .into_response(),
    }
}

/// The process is there and this thread runs.
async fn healthz(State(app): State<App>) -> Response {
    count(&app.door.requests);
    (PLAIN, "ok\n").into_response()
}

/// Every shard has recovered and serves, and none has failed.
async fn readyz(State(app): State<App>) -> Response {
    count(&app.door.requests);
    match app.board.unready() {
        None => (PLAIN, "ready\n".to_owned()).into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")).into_response(),
    }
}

/// Ends when its time is up, or when the client goes: then this is dropped.
async fn trace(State(app): State<App>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    count(&app.door.requests);
    let refused = |status: StatusCode, why: String| (status, PLAIN, format!("{why}\n")).into_response();
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.body_text()),
    };
    match app.traces.run(&app.board, asked).await {
        Ok(found) => ([(header::CONTENT_TYPE, "application/json")], format!("{found}\n")).into_response(),
        Err((status, why)) => refused(status, why),
    }
}

async fn nothing(State(app): State<App>, uri: Uri) -> Response {
    count(&app.door.requests);
    let path: String = uri.path().chars().take(100).collect();
    let message = format!("there is nothing at {path:?}; there are /metrics, /healthz, /readyz, /trace\n");
    (StatusCode::NOT_FOUND, PLAIN, message).into_response()
}
