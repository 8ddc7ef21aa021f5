//! Decides by a token bucket per caller whether a call may go on: one invoke, one durable decision.
//!
//! The bucket is a few numbers that each call brings up to date, so nothing runs while nobody calls.

use gristmill_sdk::{App, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};

/// Of a caller that was not configured: calls a second.
pub const PER_SECOND: u64 = 10;
/// And calls that may come at once.
pub const BURST: u64 = 20;
/// Highest value of both.
const LIMIT_MAX: u64 = 1_000_000_000;
/// A token, in the bucket's unit.
const TOKEN: u64 = 1_000_000;

/// A caller's bucket, as it is stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Bucket {
    /// Millionths of tokens that were there at `at_micros`.
    tokens_micro: u64,
    at_micros: u64,
    per_second: u64,
    burst: u64,
}

/// Payload of `configure`.
#[derive(Deserialize)]
struct Limits {
    per_second: u64,
    burst: u64,
}

/// Payload of `take`; without a payload it is one token.
#[derive(Deserialize)]
struct Take {
    tokens: u64,
}

/// Reply of `take`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the call may go on.
    pub allowed: bool,
    /// Whole tokens that are left.
    pub left: u64,
    /// When there will be as many as were asked for, milliseconds from now; 0 if they were taken.
    pub retry_after_millis: u64,
}

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("rate-limiter", include_str!("../app.yaml")).each("callers", "take", take).each(
        "callers",
        "configure",
        configure,
    )
}

/// Takes tokens, if they are there.
fn take(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Take { tokens } = if input.payload.is_empty() { Take { tokens: 1 } } else { input.json()? };
    let mut bucket = bucket_now(context)?;
    if !(1..=bucket.burst).contains(&tokens) {
        return Err(Failure::new(format!(
            "{tokens} tokens at once; 1 to {} are allowed for this caller",
            bucket.burst
        )));
    }
    let wanted = tokens * TOKEN;
    let missing = wanted.saturating_sub(bucket.tokens_micro);
    if missing == 0 {
        bucket.tokens_micro -= wanted;
        context.set_value_json(&bucket)?;
        context.count("allowed", &[], 1);
    } else {
        // Nothing is stored: the bucket fills by itself.
        context.count("refused", &[], 1);
    }
    let decision = Decision {
        allowed: missing == 0,
        left: bucket.tokens_micro / TOKEN,
        retry_after_millis: missing.div_ceil(bucket.per_second).div_ceil(1_000),
    };
    let reply = serde_json::to_vec(&decision).map_err(|error| Failure::new(format!("no JSON: {error}")))?;
    Ok(Reply::value(reply))
}

/// Sets what a caller may do, from now on.
fn configure(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Limits { per_second, burst } = input.json()?;
    if !(1..=LIMIT_MAX).contains(&per_second) || !(1..=LIMIT_MAX).contains(&burst) {
        return Err(Failure::new(format!("{per_second} a second, {burst} at once; both are 1 to {LIMIT_MAX}")));
    }
    let bucket = bucket_now(context)?;
    let tokens_micro = bucket.tokens_micro.min(burst * TOKEN);
    context.set_value_json(&Bucket { tokens_micro, per_second, burst, ..bucket })?;
    Ok(Reply::none())
}

/// The caller's bucket as it is at this moment.
fn bucket_now(context: &mut Context<'_>) -> Result<Bucket, Failure> {
    let now = context.now_micros();
    let stored: Option<Bucket> = context.value_json()?;
    let full = Bucket { tokens_micro: BURST * TOKEN, at_micros: now, per_second: PER_SECOND, burst: BURST };
    let bucket = stored.unwrap_or(full);
    // So many millionths come in a microsecond as tokens in a second.
    let come = now.saturating_sub(bucket.at_micros).saturating_mul(bucket.per_second);
    let tokens_micro = bucket.tokens_micro.saturating_add(come).min(bucket.burst * TOKEN);
    Ok(Bucket { tokens_micro, at_micros: now, ..bucket })
}
