//! Catalogs that older versions of the program wrote. In version 2 no topic was compacted, in version 1 topics kept their
//! events for ever.

use super::{AppEntry, Catalog, Deleted, Subscription, Table, Topic};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

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
struct AppEntryV2 {
    id: u32,
    name: String,
    version: u32,
    file: String,
    topics: Vec<TopicV2>,
    tables: Vec<Table>,
    subscriptions: Vec<Subscription>,
}

#[derive(Archive, Serialize, Deserialize)]
struct CatalogV2 {
    version: u64,
    next: u32,
    apps: Vec<AppEntryV2>,
    deleted: Vec<Deleted>,
}

#[derive(Archive, Serialize, Deserialize)]
struct AppEntryV1 {
    id: u32,
    name: String,
    version: u32,
    file: String,
    topics: Vec<TopicV1>,
    tables: Vec<Table>,
    subscriptions: Vec<Subscription>,
}

#[derive(Archive, Serialize, Deserialize)]
struct CatalogV1 {
    version: u64,
    next: u32,
    apps: Vec<AppEntryV1>,
    deleted: Vec<Deleted>,
}

/// The archive behind version 1.
pub(super) fn read_1(archive: &AlignedVec<16>) -> Result<Catalog, rkyv::rancor::Error> {
    let CatalogV1 { version, next, apps, deleted } = rkyv::from_bytes(archive)?;
    let app = |old| {
        let AppEntryV1 { id, name, version, file, topics, tables, subscriptions } = old;
        AppEntry { id, name, version, file, topics: topics.into_iter().map(topic_1).collect(), tables, subscriptions }
    };
    Ok(Catalog { version, next, apps: apps.into_iter().map(app).collect(), deleted })
}

/// The archive behind version 2.
pub(super) fn read_2(archive: &AlignedVec<16>) -> Result<Catalog, rkyv::rancor::Error> {
    let CatalogV2 { version, next, apps, deleted } = rkyv::from_bytes(archive)?;
    let app = |old| {
        let AppEntryV2 { id, name, version, file, topics, tables, subscriptions } = old;
        AppEntry { id, name, version, file, topics: topics.into_iter().map(topic_2).collect(), tables, subscriptions }
    };
    Ok(Catalog { version, next, apps: apps.into_iter().map(app).collect(), deleted })
}

fn topic_1(TopicV1 { id, name, key, value, lanes }: TopicV1) -> Topic {
    topic_2(TopicV2 { id, name, key, value, lanes, keep_micros: None, keep_bytes: None, hard: false, compact: false })
}

fn topic_2(TopicV2 { id, name, key, value, lanes, keep_micros, keep_bytes, hard, compact }: TopicV2) -> Topic {
    Topic { id, name, key, value, lanes, keep_micros, keep_bytes, hard, compact, tombstone_micros: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::datatype::DataType;

    fn of(topic: Topic) -> Catalog {
        let (name, file) = ("a".to_owned(), "app: a".to_owned());
        let (tables, subscriptions) = (Vec::new(), Vec::new());
        let app = AppEntry { id: 1, name, version: 1, file, topics: vec![topic], tables, subscriptions };
        let deleted = vec![Deleted { tables: vec![7], topics: vec![8], subscriptions: vec![] }];
        Catalog { version: 3, next: 9, apps: vec![app], deleted }
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

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_all_versions() {
        let kept = Topic { keep_micros: Some(604_800_000_000), keep_bytes: Some(10 << 30), ..plain() };
        let new = of(Topic { compact: true, tombstone_micros: 86_400_000_000, ..kept.clone() });
        assert_eq!(hex(&new.to_bytes()), GOLDEN_3);
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_3)), Ok(new));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_2)), Ok(of(kept)));
        assert_eq!(Catalog::from_bytes(&bytes(GOLDEN_1)), Ok(of(plain())));
        let error = Catalog::from_bytes(&bytes(&GOLDEN_3.replacen("03", "04", 1))).unwrap_err();
        assert!(error.0.contains("version 4; this program reads versions 1 to 3"), "{error}");
    }

    /// As version 1 of the program's catalog wrote it.
    const GOLDEN_1: &str = concat!(
        "010000000000000000000000000000000200000074ffffffffffffff000004000100000061ffffffffffffff01000000",
        "6170703a2061ffffd8ffffff01000000e0ffffff00000000d8ffffff000000000700000008000000f8ffffff01000000",
        "f4ffffff01000000f0ffffff00000000030000000000000009000000a4ffffff01000000d4ffffff0100000000000000",
    );
    /// As this version writes it.
    const GOLDEN_3: &str = concat!(
        "030000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000010000000000000060d71d140000000100000061ffffffffffffff01000000",
        "6170703a2061ffffa8ffffff01000000e0ffffff00000000d8ffffff000000000700000008000000f8ffffff01000000",
        "f4ffffff01000000f0ffffff00000000030000000000000009000000a4ffffff01000000d4ffffff0100000000000000",
    );
    /// As version 2 wrote it.
    const GOLDEN_2: &str = concat!(
        "020000000000000000000000000000000200000074ffffffffffffff00000400010000000000000000a0e3d08c000000",
        "0100000000000000000000800200000000000000000000000100000061ffffffffffffff010000006170703a2061ffff",
        "b0ffffff01000000e0ffffff00000000d8ffffff000000000700000008000000f8ffffff01000000f4ffffff01000000",
        "f0ffffff00000000030000000000000009000000a4ffffff01000000d4ffffff0100000000000000",
    );
}
