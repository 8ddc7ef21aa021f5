//! SIGKILL under load: what was acknowledged is there, and nothing happened twice.

mod support;

use gristmill_base::datatype::{decode_u64, encode_u64};
use gristmill_client::{Client, Config, OwnedOperation, OwnedReply, Ticket};
use std::collections::HashMap;
use std::time::Duration;
use support::{Folder, Server};

const KEYS: usize = 40;
const WAVES: usize = 6;
const WAVE: usize = 400;

fn counter(client: &mut Client) -> impl Fn(usize) -> OwnedOperation + use<> {
    let table = client.table("loadgen/counter").expect("the app is loaded");
    let (table, handler) = (table.id, table.handler("count").expect("it has this handler").id);
    move |key| OwnedOperation::Invoke { table, handler, key: format!("key {key}").into_bytes(), payload: Vec::new() }
}

fn count_of(reply: OwnedReply) -> u64 {
    let OwnedReply::Value(bytes) = reply else { panic!("{reply:?} to an invoke") };
    decode_u64(bytes.try_into().expect("a count has 8 bytes"))
}

#[test]
fn counts_are_exact_over_hard_kills() {
    let folder = Folder::new("kill");
    let data = folder.0.join("data");
    let mut server = Server::start(&data, 2);
    let mut config = Config::new(format!("127.0.0.1:{}", server.port()));
    config.request_timeout = Duration::from_secs(60);
    let mut client = Client::connect(config).expect("it connects");
    client.app_load("loadgen.yaml", include_str!("../../loadgen/app/loadgen.yaml"), false).expect("it is good");
    let invoke = counter(&mut client);
    let mut expected: HashMap<usize, u64> = HashMap::new();
    let mut caught = 0;
    for wave in 0..WAVES {
        let tickets: Vec<(usize, Ticket)> =
            (0..WAVE).map(|at| (at * 7 % KEYS, client.submit(invoke(at * 7 % KEYS)).expect("there is room"))).collect();
        client.flush();
        // Each wave is killed a little later, so that kills fall before, within and after the commits.
        std::thread::sleep(Duration::from_millis(wave as u64 * 3));
        caught += u64::from(client.in_flight() > 0);
        server.signal("KILL");
        server.wait();
        server = Server::start(&data, if wave % 2 == 0 { 2 } else { 1 });
        client.set_address(format!("127.0.0.1:{}", server.port()));
        for (key, ticket) in tickets {
            let count = count_of(client.wait(ticket).expect("every operation ends well"));
            let last = expected.entry(key).or_default();
            *last += 1;
            assert_eq!(count, *last, "key {key} in wave {wave}");
        }
    }
    assert!(caught > 0, "no kill fell into a wave");
    for (key, count) in expected {
        let value = client.get("loadgen/counter", format!("key {key}").as_bytes()).expect("a read");
        assert_eq!(value, Some(encode_u64(count).to_vec()), "key {key}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
