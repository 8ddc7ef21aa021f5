//! The sample app fund-transfer, some of whose handlers fail now and then. At the end all money is there, each transfer has
//! ended, and accounts, statements, notices and transfers say the same of it.

use super::{Act, Names, Workload};
use crate::auditor::{Auditor, Fate, MapKey};
use crate::machine::Machine;
use crate::rng::SimRng;
use fund_transfer::{Account, Notice, Request, State, Transfer};
use gristmill_base::datatype::decode_i64;
use gristmill_base::sometimes::reached;
use gristmill_sdk::{App, Context, Failure, HandlerFn, Input, Reply};
use std::collections::{BTreeMap, BTreeSet};

/// What every account is opened with.
const OPENED: i64 = 40;

/// See the module.
#[derive(Default)]
pub struct Transfers;

/// Calls a handler of the app, which fails at its end at some times of the day.
fn flaky(name: &str, input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    let app = fund_transfer::app();
    let handler = app.handlers.iter().find(|handler| handler.name == name).expect("the app has it");
    let HandlerFn::Each(call) = handler.call else { unreachable!("its handlers take one input at a time") };
    let reply = call(input, context)?;
    if (context.now_micros() / 3_000).is_multiple_of(5) {
        reached("a step of a transfer failed at its end");
        return Err(Failure::new("not at this time of the day"));
    }
    Ok(reply)
}

fn credit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    flaky("credit", input, context)
}

fn compensate(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    flaky("compensate", input, context)
}

fn deposit(input: &Input<'_>, context: &mut Context<'_>) -> Result<Reply, Failure> {
    flaky("deposit", input, context)
}

impl Workload for Transfers {
    fn app(&self) -> App {
        let mut app = fund_transfer::app();
        for handler in &mut app.handlers {
            handler.call = match handler.name {
                "credit" => HandlerFn::Each(credit),
                "compensate" => HandlerFn::Each(compensate),
                "deposit" => HandlerFn::Each(deposit),
                _ => handler.call,
            };
        }
        app
    }

    fn handlers_append(&self) -> bool {
        true
    }

    fn topics(&self) -> &'static [&'static str] {
        &["requests", "rejected", "notices"]
    }

    fn act(&mut self, _: usize, id: u64, padding: usize, rng: &mut SimRng) -> Act {
        let account = |rng: &mut SimRng| format!("a{}", rng.below(6));
        match rng.below(20) {
            0..=3 => {
                let payload = serde_json::json!({"amount": OPENED}).to_string();
                return Act::Invoke("accounts", "open", account(rng), payload.into_bytes());
            }
            4 => return Act::Read("notices", rng.below(64) as u16, 1),
            _ => {}
        }
        let (from, mut to) = (account(rng), account(rng));
        if rng.below(12) == 0 {
            to = "nobody".to_owned();
        }
        let pad = "x".repeat(padding);
        let value = serde_json::json!({"from": from, "to": to, "amount": rng.below(20), "id": id, "pad": pad});
        Act::Produce("requests", format!("t{id}"), value.to_string().into_bytes())
    }

    fn most(&self, _: &MapKey, _: &[u8]) -> u64 {
        u64::MAX
    }

    fn check(&self, machine: &Machine, names: &Names, auditor: &Auditor) -> Result<(), String> {
        let found = Found::of(machine, names, auditor)?;
        found.check_accounts()?;
        found.check_transfers(auditor)?;
        check_fates(&found, auditor)
    }
}

/// What accounts, transfers and notices say.
#[derive(Default)]
struct Found {
    accounts: BTreeMap<String, Account>,
    /// By account and transfer.
    statements: BTreeMap<(String, String), i64>,
    transfers: BTreeMap<String, Transfer>,
    /// How often each is there.
    notices: BTreeMap<(String, String, i64), (u32, State)>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} is malformed ({error}): {}", text(bytes)))
}

impl Found {
    fn of(machine: &Machine, names: &Names, auditor: &Auditor) -> Result<Self, String> {
        let mut found = Self::default();
        let statement = names.map("accounts", "statement");
        for grain in machine.all_grains()? {
            let key = text(&grain.key);
            let value = grain.value.as_ref().map(|row| &*row.bytes);
            match (names.table_name(grain.table), value) {
                ("accounts", Some(value)) => drop(found.accounts.insert(key.clone(), json("an account", value)?)),
                ("transfers", Some(value)) => drop(found.transfers.insert(key.clone(), json("a transfer", value)?)),
                _ => {}
            }
            for (transfer, row) in grain.maps.get(&statement).into_iter().flatten() {
                let amount = <[u8; 8]>::try_from(&*row.bytes).map_err(|_| "a statement without an amount")?;
                found.statements.insert((key.clone(), text(transfer)), decode_i64(amount));
            }
        }
        for (_, _, account, value) in auditor.events_of("notices") {
            let Notice { transfer, amount, outcome } = json("a notice", value)?;
            let (count, known) = found.notices.entry((transfer, text(account), amount)).or_insert((0, outcome));
            *count += 1;
            *known = outcome;
        }
        Ok(found)
    }

    fn check_accounts(&self) -> Result<(), String> {
        let mut sum = 0;
        for (name, account) in &self.accounts {
            let moved: i64 = self.statements.iter().filter(|((of, _), _)| of == name).map(|(_, amount)| amount).sum();
            let Account { balance, pending, expected } = *account;
            if balance < 0 || (pending, expected) != (0, 0) || balance != OPENED + moved {
                return Err(format!("P5: account {name} is {account:?}; its statement moved {moved}"));
            }
            sum += balance;
        }
        let opened = OPENED * self.accounts.len() as i64;
        if sum == opened {
            Ok(())
        } else {
            Err(format!("P5: {sum} is there of the {opened} that accounts were opened with"))
        }
    }

    fn check_transfers(&self, auditor: &Auditor) -> Result<(), String> {
        let mut wanted_statements = BTreeMap::new();
        let mut wanted_notices = BTreeMap::new();
        let mut begun = BTreeSet::new();
        for (_, _, id, value) in auditor.events_of("requests") {
            let (id, request): (String, Request) = (text(id), json("a request", value)?);
            if request.amount < 1 || request.from == request.to {
                continue;
            }
            let transfer = self.transfers.get(&id).ok_or_else(|| format!("P4: transfer {id} was never begun"))?;
            // Events of a record batch have one key: of one id the first request counts.
            if !begun.insert(id.clone()) {
                continue;
            }
            if transfer.request != request {
                return Err(format!("P4: transfer {id} is {transfer:?}; asked for was {request:?}"));
            }
            let Request { from, to, amount } = request;
            match transfer.state {
                State::Done => {
                    wanted_statements.insert((from.clone(), id.clone()), -amount);
                    wanted_statements.insert((to.clone(), id.clone()), amount);
                    wanted_notices.insert((id.clone(), to, amount), (1, State::Done));
                }
                State::Refused | State::Compensated => {}
                going_on => return Err(format!("P4: transfer {id} has stopped in the state {going_on:?}")),
            }
            wanted_notices.insert((id, from, -amount), (1, transfer.state));
        }
        if let Some(id) = self.transfers.keys().find(|id| !begun.contains(*id)) {
            return Err(format!("P2: transfer {id} was never asked for"));
        }
        if wanted_statements != self.statements {
            return Err(format!("P5: statements are {:?}, not {wanted_statements:?}", self.statements));
        }
        if wanted_notices != self.notices {
            return Err(format!("P5: notices are {:?}, not {wanted_notices:?}", self.notices));
        }
        Ok(())
    }
}

/// The number of what a client sent.
fn number_of(request: &[u8]) -> Result<u64, String> {
    let value: serde_json::Value = json("a request", request)?;
    value["id"].as_u64().ok_or_else(|| "P2: a request that nobody sent".to_owned())
}

/// What clients were told is so.
fn check_fates(found: &Found, auditor: &Auditor) -> Result<(), String> {
    let mut there: BTreeMap<u64, u32> = BTreeMap::new();
    for (.., value) in auditor.events_of("requests") {
        *there.entry(number_of(value)?).or_default() += 1;
    }
    let mut rejected = auditor.events_of("rejected").count();
    for (id, issued) in &auditor.operations {
        match (&issued.act, &issued.fate) {
            (Act::Produce(_, _, value), fate) => {
                let count = there.remove(id).unwrap_or(0);
                let right = match fate {
                    Fate::Acked(_) => count == 1,
                    Fate::Unknown => count <= 1,
                    Fate::Refused(_) => count == 0,
                };
                if !right {
                    return Err(format!("P1, P2: request {id} is there {count} times and its client knows {fate:?}"));
                }
                let Request { from, to, amount } = json("a request", value)?;
                if count > 0 && (amount < 1 || from == to) {
                    rejected = rejected.checked_sub(1).ok_or("P7: a request that is none has no dead letter")?;
                }
            }
            (Act::Invoke(_, _, account, _), Fate::Acked(_)) if !found.accounts.contains_key(account) => {
                return Err(format!("P1: account {account} was opened and is not there"));
            }
            _ => {}
        }
    }
    match (there.keys().next(), rejected) {
        (Some(id), _) => Err(format!("P2: request {id} was never sent")),
        (None, 0) => Ok(()),
        (None, many) => Err(format!("P2: {many} dead letters too many")),
    }
}
