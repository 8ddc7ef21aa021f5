use super::{Catalog, Weight};
use crate::appfile::AppFile;

const BASE: &str = "app: shop
language: rust
topics:
  - {name: orders, key: string, value: json, lanes: 8}
  - {name: letters, key: string, value: json}
tables:
  - name: stock
    key: string
    value: i64
    maps: [{id: 0, name: sold, key: string, value: u64}]
    handlers:
      - name: take
        subscribe: [{name: orders, topic: orders}]
        retry: {attempts: 3, backoff: 1ms, max: 1s}
        on_exhausted: dead-letter
        dead_letter_topic: letters
      - {name: ask}
  - name: old
    key: string
    value: json
    handlers: [{name: see, subscribe: [{name: all, topic: orders, key: item}]}]
";

fn parsed(text: &str) -> AppFile {
    AppFile::parse(text, "app.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn base() -> Catalog {
    Catalog::default().load(&parsed(BASE), BASE, 7, false).expect("it is good").expect("it is new").0
}

fn changed(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    BASE.replacen(from, to, 1)
}

/// The lines of a difference from the base, with the graver ones marked.
fn told(text: &str) -> Vec<String> {
    let difference = base().difference(&parsed(text), text).expect("it is compared").expect("it is another one");
    let sign = |weight| match weight {
        Weight::Adds => '+',
        Weight::Changes => '~',
        Weight::TakesAway => '-',
        Weight::Impossible => '!',
    };
    difference.lines.iter().map(|line| format!("{} {}: {}", sign(line.weight), line.about, line.text)).collect()
}

#[test]
fn each_difference_is_told_with_its_weight() {
    let one = |from: &str, to: &str| {
        let lines = told(&changed(from, to));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let letters = "  - {name: letters, key: string, value: json}\n";
    assert_eq!(one(letters, &format!("{letters}  - {{name: more, key: u64, value: json}}\n")), "+ topic more: new");
    assert!(one("lanes: 8}", "lanes: 16}").starts_with("! topic orders: 8 lanes cannot become 16"));
    assert!(
        one("value: json, lanes: 8}", "value: json, lanes: 8, retention: {time: 7d}}")
            .starts_with("- topic orders: retention none")
    );
    assert!(one("lanes: 8}", "lanes: 8, compact: true}").starts_with("- topic orders: compacted from now on"));
    assert!(one("    value: i64\n", "    value: u64\n").starts_with("! table stock: values are i64 and would be u64"));
    assert!(one("    value: i64\n", "").starts_with("! table stock: grains have i64 values"));
    assert!(
        one("name: sold, key: string", "name: sold, key: u64")
            .starts_with("! map sold of table stock: keys are string")
    );
    assert_eq!(one("name: sold,", "name: gone,"), "~ map gone of table stock: was sold");
    assert!(one("{id: 0, name: sold, key: string, value: u64}", "").starts_with("- map sold of table stock: gone"));
    assert_eq!(
        one("    value: i64\n", "    value: i64\n    ttl: 1h\n"),
        "~ table stock: ttl none becomes 3600s, for what is written from now on"
    );
    assert!(one("attempts: 3,", "attempts: 4,").starts_with("~ handler take of table stock: retry: 3 attempts"));
    assert!(one("      - {name: ask}\n", "").starts_with("- handler ask of table stock: gone"));
    assert_eq!(
        one("      - {name: ask}\n", "      - {name: ask}\n      - {name: tell}\n"),
        "+ handler tell of table stock: new"
    );
    assert!(
        one("topic: orders, key: item}", "topic: orders, key: part}")
            .starts_with("! subscription all of table old: another")
    );
}

#[test]
fn a_renamed_subscription_is_one_that_goes_and_one_that_comes() {
    let lines = told(&changed("subscribe: [{name: orders, topic: orders}]", "subscribe: [{name: all, topic: orders}]"));
    assert!(lines.iter().any(|line| line.starts_with("+ subscription all of table stock")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("- subscription orders of table stock: gone")), "{lines:?}");
}

#[test]
fn what_takes_away_needs_force_and_what_cannot_be_never_is() {
    let catalog = base();
    let load = |text: &str, force| catalog.load(&parsed(text), text, 9, force);
    let gone = &BASE[..BASE.find("  - name: old").expect("it is there")];
    let refused = load(gone, false).expect_err("it takes a table away").0;
    assert!(refused.contains("--force") && refused.contains("table old: gone"), "{refused}");
    let (next, difference) = load(gone, true).expect("it is forced").expect("it is another one");
    assert!(difference.lines.iter().all(|line| line.weight == Weight::TakesAway));
    let (old, new) = (&catalog.apps[0], &next.apps[0]);
    assert_eq!((new.id, new.version, new.loaded_micros), (old.id, 2, 9));
    assert_eq!(new.topics, old.topics, "they keep their numbers");
    assert_eq!((&new.tables[0], &new.subscriptions[0]), (&old.tables[0], &old.subscriptions[0]));
    let deleted = next.deleted.last().expect("something goes");
    assert_eq!((&deleted.tables, &deleted.topics), (&vec![old.tables[1].id], &vec![]));
    assert_eq!(deleted.subscriptions, [old.subscriptions[1].id]);
    let lanes = changed("lanes: 8}", "lanes: 16}");
    assert!(load(&lanes, true).expect_err("keys would move").0.contains("cannot become"));
    assert_eq!(load(BASE, false).expect("it is the same"), None);
    // Back again: what was deleted is another one.
    let (back, _) = next.load(&parsed(BASE), BASE, 11, false).expect("it adds").expect("it is another one");
    assert!(back.apps[0].tables[1].id > old.tables[1].id && back.apps[0].version == 3);
    assert_eq!(back.apps[0].past.iter().map(|past| past.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(back.apps[0].file_of(2), Some(gone));
    let read = Catalog::from_bytes(&back.to_bytes()).expect("it was just written");
    assert_eq!(read, back);
}

#[test]
fn a_map_that_goes_keeps_its_id_and_lives_that_end_are_remembered() {
    let catalog = base();
    let with_ttl = changed("value: u64}]", "value: u64, ttl: 1h}]");
    let (lives, _) = catalog.load(&parsed(&with_ttl), &with_ttl, 8, false).expect("it changes").expect("it does");
    let without = changed("    maps: [{id: 0, name: sold, key: string, value: u64}]\n", "");
    let (gone, _) = lives.load(&parsed(&without), &without, 9, true).expect("forced").expect("it is another one");
    let stock = &gone.apps[0].tables[0];
    assert!(stock.maps.is_empty() && stock.retired.len() == 1 && !stock.expires());
    let other = changed("key: string, value: u64}]", "key: string, value: i64}]");
    let refused = gone.load(&parsed(&other), &other, 10, true).expect_err("entries are there").0;
    assert!(refused.contains("map sold of table stock: values are u64 and would be i64"), "{refused}");
    let (back, _) = gone.load(&parsed(BASE), BASE, 10, false).expect("it adds").expect("it does");
    let stock = &back.apps[0].tables[0];
    assert!(stock.retired.is_empty() && stock.maps[0].expired_before && stock.expires(), "entries may still expire");
}

#[test]
fn a_subscription_goes_on_in_another_handler() {
    let moved = changed("        subscribe: [{name: orders, topic: orders}]\n", "");
    let moved =
        moved.replacen("      - {name: ask}\n", "      - {name: ask, subscribe: [{name: orders, topic: orders}]}\n", 1);
    let catalog = base();
    let (next, difference) = catalog.load(&parsed(&moved), &moved, 8, false).expect("it changes").expect("it does");
    assert_eq!(next.apps[0].subscriptions[0].id, catalog.apps[0].subscriptions[0].id);
    assert_eq!(difference.lines.len(), 1);
    assert_eq!((difference.lines[0].weight, difference.lines[0].text.as_str()), (Weight::Changes, "calls ask"));
}

/// A new handler with a subscription of the same name takes nothing from the one that stays, wherever it stands in the file.
#[test]
fn a_subscription_that_stays_keeps_its_instance() {
    let catalog = base();
    let known = catalog.apps[0].subscriptions[0].id;
    let before = changed(
        "      - name: take\n",
        "      - {name: first, subscribe: [{name: orders, topic: orders}]}\n      - name: take\n",
    );
    let behind = changed("      - {name: ask}\n", "      - {name: ask, subscribe: [{name: orders, topic: orders}]}\n");
    for text in [before, behind] {
        let (next, difference) = catalog.load(&parsed(&text), &text, 8, false).expect("it adds").expect("it does");
        let app = &next.apps[0];
        let take = app.tables[0].handler_named("take").expect("it stays").id;
        let of_take: Vec<u32> = app.subscriptions.iter().filter(|it| it.handler == take).map(|it| it.id).collect();
        assert_eq!(of_take, [known], "{difference:?}");
        assert!(difference.lines.iter().all(|line| line.weight == Weight::Adds), "{difference:?}");
    }
}

#[test]
fn as_many_versions_are_kept_as_are_allowed() {
    use gristmill_base::limits::APP_VERSIONS_KEPT;
    let mut catalog = base();
    for version in 0..APP_VERSIONS_KEPT + 5 {
        let text = format!("{BASE}# {version}\n");
        let (next, difference) = catalog.load(&parsed(&text), &text, 8, false).expect("good").expect("another text");
        assert!(difference.lines.is_empty(), "other words for the same: {difference:?}");
        catalog = next;
    }
    let app = &catalog.apps[0];
    assert_eq!(app.past.len(), APP_VERSIONS_KEPT);
    assert_eq!(app.past.last().map(|past| past.version), Some(app.version - 1));
}

#[test]
fn indexes_keep_their_numbers_and_are_whole_only_with_their_table() {
    let with = |indexes: &str| {
        changed(
            "    value: json\n    handlers: [{name: see",
            &format!("    value: json\n{indexes}    handlers: [{{name: see"),
        )
    };
    let one = with("    indexes: [{name: by-item, field: item}]\n");
    let two = with("    indexes: [{name: by-item, field: item.id}]\n    auto_index: true\n");
    assert_eq!(
        told(&one),
        ["+ index by-item of table old: new; queries use it once the values that are there are in it"]
    );
    let load = |catalog: &Catalog, text: &str| catalog.load(&parsed(text), text, 9, false).unwrap().unwrap();
    let (first, _) = load(&base(), &one);
    let indexes = |catalog: &Catalog| catalog.apps[0].tables[1].indexes.clone();
    assert!(!indexes(&first)[0].is_whole);
    let (second, difference) = load(&first, &two);
    let lines: Vec<String> = difference.lines.iter().map(|line| format!("{:?} {}", line.weight, line.about)).collect();
    assert_eq!(lines, ["Changes index by-item of table old", "Adds index auto_index of table old"]);
    assert_ne!(indexes(&second)[0].id, indexes(&first)[0].id, "of another field it is another one");
    let (third, difference) = load(&second, BASE);
    assert!(difference.lines.iter().all(|line| line.weight == Weight::Changes && line.text.starts_with("gone")));
    let (fourth, _) = load(&third, &one);
    assert!(indexes(&fourth)[0].id > indexes(&second)[1].id, "numbers are not used again");
    let (new, _) = load(&Catalog::default(), &two);
    assert!(indexes(&new).iter().all(|index| index.is_whole));
    assert_eq!(Catalog::from_bytes(&new.to_bytes()), Ok(new));
}
