//! Catalogs that older versions of the program wrote. Up to version 5 there was no configuration, up to version 4 an app had one
//! version, failures no kinds, runs no time and subscriptions no pause, up to version 3 nothing expired, in version 2 no topic was
//! compacted, in version 1 topics kept their events for ever.

use super::{
    AppEntry, Begin, Catalog, Deleted, Exception, Exhausted, HandlerEntry, Map, PastVersion, Subscription, Table, Topic,
};
use gristmill_base::limits::KEY_INPUTS_DEFAULT;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Versions 1 to 4, which differ by their topics and tables.
#[derive(Archive, Serialize, Deserialize)]
struct CatalogOf<T, U> {
    version: u64,
    next: u32,
    apps: Vec<AppEntryOf<T, U>>,
    deleted: Vec<Deleted>,
}

#[derive(Archive, Serialize, Deserialize)]
struct AppEntryOf<T, U> {
    id: u32,
    name: String,
    version: u32,
    file: String,
    topics: Vec<T>,
    tables: Vec<U>,
    subscriptions: Vec<SubscriptionV4>,
}

#[derive(Archive, Serialize, Deserialize)]
struct CatalogV5 {
    version: u64,
    next: u32,
    apps: Vec<AppEntryV5>,
    deleted: Vec<Deleted>,
}

#[derive(Archive, Serialize, Deserialize)]
struct AppEntryV5 {
    id: u32,
    name: String,
    version: u32,
    file: String,
    topics: Vec<Topic>,
    tables: Vec<TableV5>,
    subscriptions: Vec<SubscriptionV5>,
    loaded_micros: u64,
    past: Vec<PastVersion>,
}

#[derive(Archive, Serialize, Deserialize)]
struct TableV5 {
    id: u32,
    name: String,
    key: u8,
    value: Option<u8>,
    maps: Vec<Map>,
    handlers: Vec<HandlerEntryV5>,
    ttl_micros: Option<u64>,
    expired_before: bool,
    retired: Vec<Map>,
}

#[derive(Archive, Serialize, Deserialize)]
struct HandlerEntryV5 {
    id: u32,
    name: String,
    attempts: u32,
    backoff_nanos: u64,
    backoff_max_nanos: u64,
    exhausted: Option<Exhausted>,
    dead_letter: Option<u32>,
    exceptions: Vec<Exception>,
    timeout_nanos: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SubscriptionV5 {
    id: u32,
    name: String,
    topic: u32,
    table: u32,
    handler: u32,
    field: Option<String>,
    paused: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct SubscriptionV4 {
    id: u32,
    name: String,
    topic: u32,
    table: u32,
    handler: u32,
    field: Option<String>,
}

#[derive(Archive, Serialize, Deserialize)]
struct HandlerEntryV4 {
    id: u32,
    name: String,
    attempts: u32,
    backoff_nanos: u64,
    backoff_max_nanos: u64,
    exhausted: Option<Exhausted>,
    dead_letter: Option<u32>,
}

#[derive(Archive, Serialize, Deserialize)]
struct TableV4 {
    id: u32,
    name: String,
    key: u8,
    value: Option<u8>,
    maps: Vec<MapV4>,
    handlers: Vec<HandlerEntryV4>,
    ttl_micros: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
struct MapV4 {
    id: u16,
    name: String,
    key: u8,
    value: u8,
    ttl_micros: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
struct TopicV1 {
    id: u32,
    name: String,
    key: u8,
    value: u8,
    lanes: u16,
}

#[derive(Archive, Serialize, Deserialize)]
struct TopicV2 {
    id: u32,
    name: String,
    key: u8,
    value: u8,
    lanes: u16,
    keep_micros: Option<u64>,
    keep_bytes: Option<u64>,
    hard: bool,
    /// Was reserved: no version that wrote it had a `true`.
    compact: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct TableV3 {
    id: u32,
    name: String,
    key: u8,
    value: Option<u8>,
    maps: Vec<MapV3>,
    handlers: Vec<HandlerEntryV4>,
}

#[derive(Archive, Serialize, Deserialize)]
struct MapV3 {
    id: u16,
    name: String,
    key: u8,
    value: u8,
}

/// The archive behind a version; `None` if it has none of these.
pub(super) fn read(version: u32, archive: &AlignedVec<16>) -> Option<Result<Catalog, rkyv::rancor::Error>> {
    Some(match version {
        1 => rkyv::from_bytes(archive).map(|old| now(old, topic_1, table_3)),
        2 => rkyv::from_bytes(archive).map(|old| now(old, topic_2, table_3)),
        3 => rkyv::from_bytes(archive).map(|old| now(old, |topic: Topic| topic, table_3)),
        4 => rkyv::from_bytes(archive).map(|old| now(old, |topic: Topic| topic, table_4)),
        5 => rkyv::from_bytes(archive).map(catalog_5),
        _ => return None,
    })
}

fn now<T, U>(old: CatalogOf<T, U>, topic: fn(T) -> Topic, table: fn(U) -> TableV5) -> Catalog {
    let CatalogOf { version, next, apps, deleted } = old;
    let app = |AppEntryOf { id, name, version, file, topics, tables, subscriptions }| {
        let topics = Vec::into_iter(topics).map(topic).collect();
        let subscriptions = Vec::into_iter(subscriptions).map(subscription).collect();
        let tables = Vec::into_iter(tables).map(table).collect();
        let (loaded_micros, past) = (0, Vec::new());
        AppEntryV5 { id, name, version, file, topics, tables, subscriptions, loaded_micros, past }
    };
    catalog_5(CatalogV5 { version, next, apps: apps.into_iter().map(app).collect(), deleted })
}

fn catalog_5(CatalogV5 { version, next, apps, deleted }: CatalogV5) -> Catalog {
    let app = |AppEntryV5 { id, name, version, file, topics, tables, subscriptions, loaded_micros, past }| {
        let tables = Vec::into_iter(tables).map(table_5).collect();
        let subscriptions = Vec::into_iter(subscriptions).map(subscription_5).collect();
        AppEntry {
            id,
            name,
            version,
            file,
            topics,
            tables,
            subscriptions,
            loaded_micros,
            past,
            config: Vec::new(),
            replay: None,
            in_workers: false,
            rolled_back: false,
        }
    };
    Catalog { version, next, apps: apps.into_iter().map(app).collect(), deleted, renamed: Vec::new() }
}

fn subscription(SubscriptionV4 { id, name, topic, table, handler, field }: SubscriptionV4) -> SubscriptionV5 {
    SubscriptionV5 { id, name, topic, table, handler, field, paused: false }
}

fn subscription_5(old: SubscriptionV5) -> Subscription {
    let SubscriptionV5 { id, name, topic, table, handler, field, paused } = old;
    Subscription { id, name, topic, table, handler, field, paused, begin: Begin::First }
}

fn handler_4(old: HandlerEntryV4) -> HandlerEntryV5 {
    let HandlerEntryV4 { id, name, attempts, backoff_nanos, backoff_max_nanos, exhausted, dead_letter } = old;
    let (exceptions, timeout_nanos) = (Vec::new(), None);
    HandlerEntryV5 {
        id,
        name,
        attempts,
        backoff_nanos,
        backoff_max_nanos,
        exhausted,
        dead_letter,
        exceptions,
        timeout_nanos,
    }
}

fn handler_5(old: HandlerEntryV5) -> HandlerEntry {
    HandlerEntry {
        id: old.id,
        name: old.name,
        attempts: old.attempts,
        backoff_nanos: old.backoff_nanos,
        backoff_max_nanos: old.backoff_max_nanos,
        exhausted: old.exhausted,
        dead_letter: old.dead_letter,
        exceptions: old.exceptions,
        timeout_nanos: old.timeout_nanos,
        config: Vec::new(),
        control: None,
    }
}

fn topic_1(TopicV1 { id, name, key, value, lanes }: TopicV1) -> Topic {
    topic_2(TopicV2 { id, name, key, value, lanes, keep_micros: None, keep_bytes: None, hard: false, compact: false })
}

fn topic_2(TopicV2 { id, name, key, value, lanes, keep_micros, keep_bytes, hard, compact }: TopicV2) -> Topic {
    Topic { id, name, key, value, lanes, keep_micros, keep_bytes, hard, compact, tombstone_micros: 0 }
}

fn table_3(TableV3 { id, name, key, value, maps, handlers }: TableV3) -> TableV5 {
    let maps = maps.into_iter().map(|MapV3 { id, name, key, value }| MapV4 { id, name, key, value, ttl_micros: None });
    table_4(TableV4 { id, name, key, value, maps: maps.collect(), handlers, ttl_micros: None })
}

fn table_4(TableV4 { id, name, key, value, maps, handlers, ttl_micros }: TableV4) -> TableV5 {
    let handlers = handlers.into_iter().map(handler_4).collect();
    let map =
        |MapV4 { id, name, key, value, ttl_micros }| Map { id, name, key, value, ttl_micros, expired_before: false };
    let maps = maps.into_iter().map(map).collect();
    TableV5 { id, name, key, value, maps, handlers, ttl_micros, expired_before: false, retired: Vec::new() }
}

fn table_5(old: TableV5) -> Table {
    Table {
        id: old.id,
        name: old.name,
        key: old.key,
        value: old.value,
        maps: old.maps,
        handlers: old.handlers.into_iter().map(handler_5).collect(),
        ttl_micros: old.ttl_micros,
        expired_before: old.expired_before,
        retired: old.retired,
        backlog_inputs: KEY_INPUTS_DEFAULT,
        indexes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::IndexEntry;
    use crate::catalog::{Rebuilt, Renewed, Replay, ReplayPhase};
    use gristmill_base::datatype::DataType;

    fn of(topic: Topic, tables: Vec<Table>) -> Catalog {
        let (name, file) = ("a".to_owned(), "app: a".to_owned());
        let app = AppEntry {
            id: 1,
            name,
            version: 1,
            file,
            topics: vec![topic],
            tables,
            subscriptions: Vec::new(),
            loaded_micros: 0,
            past: Vec::new(),
            config: Vec::new(),
            replay: None,
            in_workers: false,
            rolled_back: false,
        };
        let deleted = vec![Deleted { tables: vec![7], topics: vec![8], subscriptions: vec![] }];
        Catalog { version: 3, next: 9, apps: vec![app], deleted, renamed: Vec::new() }
    }

    fn table(ttl_micros: Option<u64>) -> Table {
        let (name, code) = ("t".to_owned(), DataType::String.code());
        let map = |id: u16| Map {
            id,
            name: format!("m{id}"),
            key: code,
            value: code,
            ttl_micros: None,
            expired_before: false,
        };
        let maps = vec![map(0), Map { ttl_micros, ..map(3) }];
        Table {
            id: 4,
            name,
            key: code,
            value: Some(code),
            maps,
            handlers: vec![],
            ttl_micros,
            expired_before: false,
            retired: vec![],
            backlog_inputs: KEY_INPUTS_DEFAULT,
            indexes: vec![],
        }
    }

    fn plain() -> Topic {
        let (name, code) = ("t".to_owned(), DataType::String.code());
        let (keep_micros, keep_bytes) = (None, None);
        let (hard, compact, tombstone_micros) = (false, false, 0);
        Topic {
            id: 2,
            name,
            key: code,
            value: code,
            lanes: 4,
            keep_micros,
            keep_bytes,
            hard,
            compact,
            tombstone_micros,
        }
    }

    /// A handler with exception handlers and a timeout, fed by a subscription that is paused.
    fn with_failures(mut catalog: Catalog) -> Catalog {
        let exception = |call: Option<u32>, code: u32| Exception {
            name: "e".to_owned(),
            kinds: vec!["broken".to_owned(), "*".to_owned()],
            when_exhausted: call.is_none(),
            call,
            code,
            reason: if call.is_none() { "no money" } else { "" }.to_owned(),
        };
        let app = &mut catalog.apps[0];
        app.tables[0].handlers.push(HandlerEntry {
            id: 5,
            name: "h".to_owned(),
            attempts: 3,
            backoff_nanos: 1_000_000,
            backoff_max_nanos: 2_000_000,
            exhausted: Some(Exhausted::Park),
            dead_letter: Some(2),
            exceptions: vec![exception(Some(5), 0), exception(None, 402)],
            timeout_nanos: Some(30_000_000_000),
            config: vec![("h".to_owned(), "v".to_owned())],
            control: None,
        });
        let (id, name, field) = (6, "s".to_owned(), Some("f".to_owned()));
        let begin = Begin::First;
        app.subscriptions.push(Subscription { id, name, topic: 2, table: 4, handler: 5, field, paused: true, begin });
        catalog
    }

    fn app_table(catalog: &Catalog) -> Table {
        catalog.apps[0].tables[0].clone()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_all_versions() {
        let kept = Topic { keep_micros: Some(604_800_000_000), keep_bytes: Some(10 << 30), ..plain() };
        let compact = Topic { compact: true, tombstone_micros: 86_400_000_000, ..kept.clone() };
        let before = of(compact.clone(), vec![table(Some(3_600_000_000))]);
        let mut new = with_failures(before.clone());
        let app = &mut new.apps[0];
        app.config = vec![("a".to_owned(), "w".to_owned())];
        (app.version, app.loaded_micros) = (2, 1_764_000_000_000_000);
        (app.rolled_back, app.tables[0].handlers[0].control) = (true, Some(vec![b'c']));
        app.past.push(PastVersion { version: 1, file: "app: b".to_owned(), loaded_micros: 1_763_000_000_000_000 });
        let table_of = &mut app.tables[0];
        table_of.expired_before = true;
        table_of.retired.push(Map { id: 7, ..table_of.maps[0].clone() });
        let by_city = IndexEntry { id: 40, name: "by".to_owned(), field: Some("a.city".to_owned()), is_whole: false };
        let auto = IndexEntry { id: 41, name: "auto".to_owned(), field: None, is_whole: true };
        table_of.indexes = vec![by_city, auto];
        let (before_replay, rebuilt) = (new.clone(), app_table(&new));
        new.renamed = vec![(3, 4)];
        new.apps[0].replay = Some(Replay {
            id: 30,
            phase: ReplayPhase::Building,
            begin: Begin::Time(77),
            began_micros: 99,
            tables: vec![Rebuilt { old: 4, new: Table { id: 31, handlers: Vec::new(), ..rebuilt } }],
            subscriptions: vec![Renewed {
                old: 6,
                new: Subscription {
                    id: 32,
                    table: 31,
                    begin: Begin::Offset(5),
                    ..new.apps[0].subscriptions[0].clone()
                },
            }],
        });
        assert_eq!(hex(&new.to_bytes()), GOLDEN_6);
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_6)), Ok(new.clone()));
        new = before_replay;
        new.apps[0].config.clear();
        (new.apps[0].rolled_back, new.apps[0].tables[0].handlers[0].control) = (false, None);
        new.apps[0].tables[0].handlers[0].config.clear();
        new.apps[0].tables[0].indexes.clear();
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_5)), Ok(new));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_4)), Ok(before));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_3)), Ok(of(compact, vec![table(None)])));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_2)), Ok(of(kept, vec![])));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_1)), Ok(of(plain(), vec![])));
        let error = Catalog::from_bytes(&bytes(&GOLDEN_6.replacen("06", "07", 1))).unwrap_err();
        assert!(error.0.contains("version 7; this program reads versions 1 to 6"), "{error}");
    }

    /// As version 1 of the program's catalog wrote it.
    const GOLDEN_1: &str = concat!(
        "010000000000000000000000000000000200000074ffffffffffffff000004000100000061ffffffffffffff01000000",
        "6170703a2061ffffd8ffffff01000000e0ffffff00000000d8ffffff000000000700000008000000f8ffffff01000000",
        "f4ffffff01000000f0ffffff00000000030000000000000009000000a4ffffff01000000d4ffffff0100000000000000",
    );
    /// As this version writes it.
    const GOLDEN_6: &str = concat!(
        "060000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000010000000000000060d71d14000000000000006d30ffffffffffff00000000",
        "000000000000000000000000000000000000000000000000030000006d33ffffffffffff000000000100000000000000",
        "00a493d600000000000000000000000062726f6b656effff2affffffffffffff62726f6b656effff2affffffffffffff",
        "65ffffffffffffffd8ffffff0200000000000000010000000500000000000000ffffffffffffffff65ffffffffffffff",
        "c0ffffff02000000010000000000000000000000920100006e6f206d6f6e657968ffffffffffffff76ffffffffffffff",
        "63000000000000000500000068ffffffffffffff0300000040420f000000000080841e00000000000101000001000000",
        "020000006cffffff0200000000000000010000000000000000ac23fc06000000a0ffffff0100000001000000a4ffffff",
        "0100000000000000070000006d30ffffffffffff00000000000000000000000000000000000000000000000000000000",
        "280000006279ffffffffffff01000000612e63697479ffff00000000290000006175746fffffffff0000000000000000",
        "00000000010000000400000074ffffffffffffff0001000058feffff0200000028ffffff010000000100000000000000",
        "00a493d600000000010000006cffffff0100000000000000000010000000000080ffffff020000000600000073ffffff",
        "ffffffff0200000004000000050000000100000066ffffffffffffff0100000000000000000000000000000000000000",
        "010000006170703a2062ffff000000000030bd6c7043060061ffffffffffffff77ffffffffffffff000000006d30ffff",
        "ffffffff00000000000000000000000000000000000000000000000000000000030000006d33ffffffffffff00000000",
        "010000000000000000a493d6000000000000000000000000070000006d30ffffffffffff000000000000000000000000",
        "00000000000000000000000000000000280000006279ffffffffffff01000000612e63697479ffff0000000029000000",
        "6175746fffffffff0000000000000000000000000100000004000000000000001f00000074ffffffffffffff00010000",
        "38ffffff0200000080ffffff00000000010000000000000000a493d6000000000100000064ffffff0100000000000000",
        "000010000000000078ffffff0200000006000000000000002000000073ffffffffffffff020000001f00000005000000",
        "0100000066ffffffffffffff01000000010000000000000005000000000000000100000061ffffffffffffff02000000",
        "6170703a2061ffff18fcffff01000000e8fdffff0100000030feffff01000000004062415944060058feffff01000000",
        "68feffff0100000001000000000000001e0000000100000002000000000000004d000000000000006300000000000000",
        "f8feffff0100000048ffffff0100000000010000000000000700000008000000f8ffffff01000000f4ffffff01000000",
        "f0ffffff00000000030000000400000003000000000000000900000044ffffff01000000ccffffff01000000dcffffff",
        "0100000000000000",
    );
    /// As version 5 wrote it.
    const GOLDEN_5: &str = concat!(
        "050000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000010000000000000060d71d14000000000000006d30ffffffffffff00000000",
        "000000000000000000000000000000000000000000000000030000006d33ffffffffffff000000000100000000000000",
        "00a493d600000000000000000000000062726f6b656effff2affffffffffffff62726f6b656effff2affffffffffffff",
        "65ffffffffffffffd8ffffff0200000000000000010000000500000000000000ffffffffffffffff65ffffffffffffff",
        "c0ffffff02000000010000000000000000000000920100006e6f206d6f6e65790500000068ffffffffffffff03000000",
        "40420f000000000080841e000000000001010000010000000200000084ffffff02000000000000000100000000000000",
        "00ac23fc06000000070000006d30ffffffffffff00000000000000000000000000000000000000000000000000000000",
        "0400000074ffffffffffffff00010000c0feffff0200000078ffffff01000000010000000000000000a493d600000000",
        "01000000a4ffffff01000000000000000600000073ffffffffffffff0200000004000000050000000100000066ffffff",
        "ffffffff01000000010000006170703a2062ffff000000000030bd6c704306000100000061ffffffffffffff02000000",
        "6170703a2061fffff8fdffff0100000060ffffff0100000098ffffff010000000040624159440600b0ffffff01000000",
        "0700000008000000f8ffffff01000000f4ffffff01000000f0ffffff0000000003000000000000000900000094ffffff",
        "01000000d4ffffff0100000000000000",
    );
    /// As version 4 wrote it.
    const GOLDEN_4: &str = concat!(
        "040000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000010000000000000060d71d14000000000000006d30ffffffffffff00000000",
        "00000000000000000000000000000000030000006d33ffffffffffff00000000010000000000000000a493d600000000",
        "0400000074ffffffffffffff00010000b0ffffff02000000e8ffffff00000000010000000000000000a493d600000000",
        "0100000061ffffffffffffff010000006170703a2061ffff38ffffff01000000b0ffffff01000000d8ffffff00000000",
        "0700000008000000f8ffffff01000000f4ffffff01000000f0ffffff00000000030000000000000009000000a4ffffff",
        "01000000d4ffffff0100000000000000",
    );
    /// As version 3 wrote it.
    const GOLDEN_3: &str = concat!(
        "030000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000010000000000000060d71d14000000000000006d30ffffffffffff00000000",
        "030000006d33ffffffffffff000000000400000074ffffffffffffff00010000d0ffffff02000000e8ffffff00000000",
        "0100000061ffffffffffffff010000006170703a2061ffff68ffffff01000000c0ffffff01000000d8ffffff00000000",
        "0700000008000000f8ffffff01000000f4ffffff01000000f0ffffff00000000030000000000000009000000a4ffffff",
        "01000000d4ffffff0100000000000000",
    );
    /// As version 2 wrote it.
    const GOLDEN_2: &str = concat!(
        "020000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000000000000000000100000061ffffffffffffff010000006170703a2061ffff",
        "b0ffffff01000000e0ffffff00000000d8ffffff000000000700000008000000f8ffffff01000000f4ffffff01000000",
        "f0ffffff00000000030000000000000009000000a4ffffff01000000d4ffffff0100000000000000",
    );
}
