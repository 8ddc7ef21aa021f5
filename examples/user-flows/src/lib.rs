//! Follows users through flows of several steps, such as a checkout, and notices who gives up.
//!
//! A user's grain holds a row for each flow that goes on, and a timer that each step sets anew. The last step completes the
//! flow; the timer abandons it. Either happens once.

use gristmill_sdk::{App, Cause, Context, Failure, Input, Reply};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The flows and their steps; the last one completes a flow.
const FLOWS: [(&str, &[&str]); 2] =
    [("signup", &["form", "mail", "welcome"]), ("checkout", &["cart", "address", "payment", "thanks"])];
/// Without a step for so long a flow is abandoned.
pub const IDLE: Duration = Duration::from_secs(30 * 60);

/// An event of the topic `steps`.
#[derive(Deserialize)]
struct Step {
    flow: String,
    step: String,
}

/// A flow that goes on, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flow {
    /// The last step.
    step: String,
    /// When the first step came, microseconds since 1970.
    since_micros: u64,
}

/// The app: its file and its handlers.
#[must_use]
pub fn app() -> App {
    App::new("user-flows", include_str!("../app.yaml")).each("users", "step", step).each("users", "idle", idle)
}

/// Takes a step of a user. The first step begins a flow, also where one goes on; one out of order is counted and ignored.
fn step(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Step { flow: name, step } = input.json()?;
    let known = || FLOWS.map(|(name, steps)| format!("{name} ({})", steps.join(", "))).join("; ");
    let steps = FLOWS.iter().find(|(flow, _)| *flow == name).map(|(_, steps)| *steps);
    let at = steps.and_then(|steps| steps.iter().position(|known| *known == step));
    let (Some(steps), Some(at)) = (steps, at) else {
        return Err(Failure::new(format!("step {step} of flow {name}; the flows and their steps: {}", known())));
    };
    let now = context.now_micros();
    let before: Option<Flow> = read(context, &name)?;
    let reached = before.as_ref().and_then(|flow| steps.iter().position(|known| *known == flow.step));
    let labels = [("flow", name.as_str())];
    let since_micros = match (before, reached) {
        // The first step again: the user begins anew.
        (Some(_), Some(_)) if at == 0 => now,
        (None, _) if at == 0 => {
            context.count("flows_started", &labels, 1);
            context.gauge_add("flows", &labels, 1);
            now
        }
        (Some(flow), Some(reached)) if at == reached || at == reached + 1 => flow.since_micros,
        _ => {
            context.count("steps_out_of_order", &labels, 1);
            return Ok(Reply::none());
        }
    };
    if at + 1 == steps.len() {
        context.cancel_timer(&name);
        return end(context, &name, "completed", &step);
    }
    write(context, &name, &Flow { step, since_micros })?;
    context.set_timer(&name, now + IDLE.as_micros() as u64, "idle", name.as_str())?;
    Ok(Reply::none())
}

/// A flow has had no step for too long.
fn idle(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let Cause::Timer { name, .. } = input.cause else { return Ok(Reply::value("only a timer calls this")) };
    match read(context, name)? {
        Some(flow) => end(context, name, "abandoned", &flow.step),
        None => Ok(Reply::none()),
    }
}

fn end(context: &mut Context<'_>, name: &str, outcome: &str, step: &str) -> Result<Reply, Failure> {
    context.map_delete("flows", name.as_bytes())?;
    context.count("flows_ended", &[("flow", name), ("outcome", outcome)], 1);
    context.gauge_add("flows", &[("flow", name)], -1);
    let event = serde_json::json!({"flow": name, "outcome": outcome, "step": step});
    let key = context.key().to_vec();
    context.append("ended", key, event.to_string())?;
    Ok(Reply::none())
}

fn read(context: &mut Context<'_>, name: &str) -> Result<Option<Flow>, Failure> {
    let Some(bytes) = context.map_get("flows", name.as_bytes())? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Failure::new(format!("the flow is malformed: {error}")))
}

fn write(context: &mut Context<'_>, name: &str, flow: &Flow) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(flow).map_err(|error| Failure::new(format!("no JSON for the flow: {error}")))?;
    context.map_put("flows", name.as_bytes(), bytes)
}
