use super::*;
use DataType::{Json, String as Text, U64};

const WORD_COUNT: &str = r#"
app: word-count
language: rust
topics:
  - {name: lines, key: string, value: json}
  - {name: rejected, key: string, value: json, lanes: 3, retention: none}
tables:
  - name: splitter
    key: string
    handlers:
      - name: split
        subscribe: [{name: lines, topic: lines}]
        retry: {attempts: 5, backoff: 100ms, max: 10s}
        on_exhausted: dead-letter
        dead_letter_topic: rejected
  - name: words
    key: string
    maps: [{id: 0, name: counts, key: string, value: u64}]
    handlers: [{name: add}]
  - name: docs
    key: string
    value: json
    handlers: [{name: add}]
"#;

/// The message with its place for a good file in which `from` is replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    assert!(WORD_COUNT.contains(from), "{from} is not in the file");
    AppFile::parse(&WORD_COUNT.replacen(from, to, 1), "app.yaml").expect_err("a planted error").to_string()
}

#[test]
fn a_good_file_is_read() {
    let app = AppFile::parse(WORD_COUNT, "app.yaml").unwrap();
    assert_eq!((app.app.as_str(), app.language), ("word-count", Language::Rust));
    let lanes: Vec<_> = app.topics.iter().map(|topic| (topic.name.as_str(), topic.lanes)).collect();
    assert_eq!(lanes, [("lines", 64), ("rejected", 3)]);
    let split = &app.tables[0].handlers[0];
    let second = Duration::from_secs(1);
    assert_eq!(split.retry, Some(RetrySpec { attempts: 5, backoff: second / 10, max: 10 * second }));
    assert_eq!(split.on_exhausted, Some(OnExhausted::DeadLetter));
    assert_eq!(split.dead_letter_topic.as_deref(), Some("rejected"));
    assert_eq!(split.subscribe, [SubscribeSpec { name: "lines".into(), topic: "lines".into(), key: None }]);
    let counts = MapSpec { id: 0, name: "counts".into(), key: Text, value: ValueType::Plain(U64), ttl: None };
    assert_eq!((&app.tables[0].value, &app.tables[1].maps), (&None, &vec![counts]));
    assert_eq!(app.tables[2].value, Some(ValueType::Plain(Json)));
}

#[test]
fn rkyv_values_and_field_routes_are_read() {
    let text = WORD_COUNT.replace("value: u64", "value: rkyv:Count").replace("topic: lines", "topic: lines, key: doc");
    let app = AppFile::parse(&text, "app.yaml").unwrap();
    assert_eq!(app.tables[1].maps[0].value, ValueType::Rkyv("Count".into()));
    assert_eq!(app.tables[0].handlers[0].subscribe[0].key.as_deref(), Some("doc"));
}

#[test]
fn text_that_is_no_yaml() {
    let message = refused("topics:\n", "topics: [\n");
    assert!(message.starts_with("app.yaml:") && message.contains("no YAML of an app file"), "{message}");
}

#[test]
fn an_empty_file() {
    let message = AppFile::parse("", "app.yaml").unwrap_err().to_string();
    assert!(message.contains("app"), "{message}");
}

#[test]
fn a_file_that_is_too_long() {
    let text = format!("{WORD_COUNT}#{}", "x".repeat(APP_FILE_BYTES_MAX));
    let message = AppFile::parse(&text, "app.yaml").unwrap_err().to_string();
    assert!(message.starts_with("app.yaml: found ") && message.contains("at most 1048576"), "{message}");
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let text = format!("app: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    AppFile::parse(&text, "app.yaml").unwrap_err();
}

#[test]
fn an_unknown_key_with_the_nearest() {
    assert_eq!(
        refused("topics:\n", "topicz:\n"),
        "app.yaml:4:1: unknown key \"topicz\"; allowed: app, language, worker, topics, tables, exception_handlers, config; did you mean topics?"
    );
    assert_eq!(
        refused("attempts: 5", "atempts: 5"),
        "app.yaml:13:17: tables[0].handlers[0].retry: unknown key \"atempts\"; allowed: attempts, backoff, max; did you mean attempts?"
    );
}

#[test]
fn a_key_that_stands_twice() {
    let message = refused("language: rust", "app: again\nlanguage: rust");
    assert!(message.starts_with("app.yaml:3:") && message.contains("duplicate"), "{message}");
}

#[test]
fn a_missing_key() {
    assert_eq!(refused("app: word-count\n", ""), "app.yaml:2:1: the key app is missing");
    assert_eq!(
        refused("name: lines, key: string, value: json", "name: lines, value: json"),
        "app.yaml:5:5: topics[0]: the key key is missing"
    );
}

#[test]
fn a_language_without_workers() {
    let message = refused("language: rust", "language: cobol");
    assert!(message.starts_with("app.yaml:3:11: language: found \"cobol\"; allowed: rust, python"), "{message}");
}

#[test]
fn python_runs_in_workers_that_somebody_starts() {
    assert_eq!(refused("language: rust", "language: python"), "app.yaml:2:1: the key worker is missing");
    let message = refused("language: rust", "language: python\nworker: here");
    assert!(message.contains("found \"here\"; allowed: external"), "{message}");
    let message = refused("language: rust", "language: rust\nworker: external");
    assert!(message.contains("language: python alone"), "{message}");
    let text = WORD_COUNT.replace("language: rust", "language: python\nworker: external");
    assert_eq!(AppFile::parse(&text, "app.yaml").unwrap().language, Language::Python);
}

#[test]
fn a_type_that_does_not_exist() {
    assert_eq!(
        refused("key: string, value: json", "key: strin, value: json"),
        "app.yaml:5:24: topics[0].key: found \"strin\"; allowed: string, bytes, bool, i64, u64, f64; did you mean string?"
    );
    let message = refused("value: u64", "value: u32");
    assert!(message.contains("tables[1].maps[0].value: found \"u32\"") && message.contains("rkyv:NAME"), "{message}");
    assert!(refused("value: u64", "value: 'rkyv:'").contains("name of a Rust type"));
}

#[test]
fn json_is_no_key_type() {
    let message = refused("key: string, value: u64", "key: json, value: u64");
    assert!(message.contains("maps[0].key: found \"json\"; allowed: string, bytes, bool, i64, u64, f64"), "{message}");
}

#[test]
fn names_that_cannot_be_typed() {
    for name in ["a/b", "\"\"", "-x", ".x", "ü", "\"a b\""] {
        let message = refused("name: rejected", &format!("name: {name}"));
        assert!(message.starts_with("app.yaml:6:12: topics[1].name: found") && message.contains("ASCII"), "{message}");
    }
    assert!(refused("name: rejected", &format!("name: {}", "x".repeat(250))).contains("250 bytes; at most 249"));
    assert!(refused("name: rejected", "name: 5").contains("found the number 5; allowed: text"));
}

#[test]
fn names_and_ids_that_stand_twice() {
    assert_eq!(
        refused("name: rejected", "name: lines"),
        "app.yaml:6:5: topics[1]: found name lines twice among the topics (items 0 and 1); each is allowed once"
    );
    assert!(refused("name: docs", "name: words").contains("tables[2]: found name words twice"));
    let maps = "maps: [{id: 0, name: counts, key: string, value: u64}, {id: 0, name: other, key: string, value: u64}]";
    let one = "maps: [{id: 0, name: counts, key: string, value: u64}]";
    assert!(refused(one, maps).contains("tables[1].maps[1]: found id 0 twice"));
    assert!(
        refused(one, &maps.replace("id: 0, name: other", "id: 1, name: counts")).contains("found name counts twice")
    );
    assert!(
        refused("[{name: add}]", "[{name: add}, {name: add}]").contains("tables[1].handlers[1]: found name add twice")
    );
    let twice = "[{name: lines, topic: lines}, {name: lines, topic: lines}]";
    assert!(refused("[{name: lines, topic: lines}]", twice).contains("found name lines twice among the subscriptions"));
}

#[test]
fn numbers_out_of_range() {
    for lanes in ["0", "257", "-1", "1.5", "many", "99999999999999999999"] {
        let message = refused("lanes: 3", &format!("lanes: {lanes}"));
        assert!(message.contains("topics[1].lanes: found") && message.contains("from 1 to 256"), "{message}");
    }
    assert!(refused("id: 0", "id: 256").contains("from 0 to 255"));
    assert!(refused("attempts: 5", "attempts: 0").contains("from 1 to 10000"));
}

#[test]
fn durations_that_are_none() {
    for wrong in ["100", "ms", "1 s", "-1s", "1d", "25h", "99999999999999999999s", "18446744073709551615h"] {
        let message = refused("backoff: 100ms", &format!("backoff: {wrong}"));
        assert!(message.contains("retry.backoff: found") && message.contains("100ms or 10s"), "{message}");
    }
    assert!(
        refused("max: 10s", "max: 10ms").contains("retry.max: found \"10ms\"; allowed: a duration that is not shorter")
    );
}

#[test]
fn retention_has_bounds() {
    let read = |retention: &str| {
        let text = WORD_COUNT.replace("retention: none", &format!("retention: {retention}, compact: false"));
        AppFile::parse(&text, "app.yaml").map(|app| app.topics[1].retention).map_err(|error| error.to_string())
    };
    let spec = |time: Option<u64>, bytes| RetentionSpec { time: time.map(Duration::from_secs), bytes, hard: false };
    assert_eq!(read("none"), Ok(None));
    assert_eq!(read("{time: 7d, bytes: 10GiB}"), Ok(Some(spec(Some(604_800), Some(10 << 30)))));
    assert_eq!(read("{bytes: 5000, hard: false}"), Ok(Some(spec(None, Some(5_000)))));
    let hard = RetentionSpec { hard: true, ..spec(Some(90), None) };
    assert_eq!(read("{time: 90s, hard: true}"), Ok(Some(hard)));
    for (time, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("36500d", 36_500 * 86_400)] {
        assert_eq!(read(&format!("{{time: {time}}}")), Ok(Some(spec(Some(seconds), None))), "{time}");
    }
    for (bytes, count) in [("1KiB", 1 << 10), ("3MiB", 3 << 20), ("2TiB", 2 << 40)] {
        assert_eq!(read(&format!("{{bytes: {bytes}}}")), Ok(Some(spec(None, Some(count)))), "{bytes}");
    }
}

#[test]
fn retention_that_is_none() {
    for (wrong, says) in [
        ("7d", "topics[1].retention: found \"7d\"; allowed: none, or keys as in {time: 7d, bytes: 10GiB}"),
        ("{}", "topics[1].retention: found neither time nor bytes"),
        ("{hard: false}", "topics[1].retention: found neither time nor bytes"),
        ("{times: 7d}", "unknown key \"times\"; allowed: time, bytes, hard; did you mean time?"),
        ("{time: 7w}", "retention.time: found \"7w\"; allowed: a whole number with a unit (s, m, h, d)"),
        ("{time: 0s}", "retention.time: found \"0s\""),
        ("{time: 7}", "retention.time: found the number 7"),
        ("{time: 36501d}", "from 1s to 36500d"),
        (
            "{bytes: 10GB}",
            "retention.bytes: found \"10GB\"; allowed: a whole number of bytes, or one with a unit (KiB,",
        ),
        ("{bytes: 0}", "retention.bytes: found the number 0"),
        ("{bytes: -5}", "retention.bytes: found the number -5"),
        ("{bytes: 99999999TiB}", "retention.bytes: found"),
        ("{time: 7d, hard: soft}", "retention.hard: found \"soft\"; allowed: true, false"),
        ("none, compact: 1", "topics[1].compact: found the number 1; allowed: true, false"),
        ("none, compact: delete", "topics[1].compact: found \"delete\"; allowed: true, false"),
        ("none, delete_retention: 1h", "topics[1].delete_retention: found it without compact: true; allowed: both"),
        ("none, compact: false, delete_retention: 1h", "topics[1].delete_retention: found it without compact: true"),
        ("none, compact: true, delete_retention: 0s", "topics[1].delete_retention: found \"0s\"; allowed: a whole"),
        ("none, compact: true, delete_retention: none", "delete_retention: found \"none\"; allowed: a whole number"),
        ("none, compact: true, tombstones: 1h", "unknown key \"tombstones\"; allowed: name, key, value, lanes,"),
        ("none, compact: true", "found \"rejected\", which is compacted"),
    ] {
        let message = refused("retention: none", &format!("retention: {wrong}"));
        assert!(message.contains(says), "{wrong}: {message}");
    }
}

#[test]
fn compaction_is_off_unless_asked_for() {
    let read = |rest: &str| {
        let text = WORD_COUNT
            .replace("name: lines, key: string, value: json", &format!("name: lines, key: string, value: json{rest}"));
        AppFile::parse(&text, "app.yaml").map(|app| app.topics[0].compact).map_err(|error| error.to_string())
    };
    let spec = |seconds| Some(CompactSpec { delete_retention: Duration::from_secs(seconds) });
    assert_eq!(read(""), Ok(None));
    assert_eq!(read(", compact: false"), Ok(None));
    assert_eq!(read(", compact: true"), Ok(spec(86_400)));
    assert_eq!(read(", compact: true, delete_retention: 90s, retention: {time: 7d, hard: true}"), Ok(spec(90)));
}

#[test]
fn subscriptions_that_lead_nowhere() {
    assert_eq!(
        refused("topic: lines", "topic: line"),
        "app.yaml:12:42: tables[0].handlers[0].subscribe[0].topic: unknown topic \"line\"; topics of this file: lines, rejected; did you mean lines?"
    );
    let message = refused("name: lines, key: string", "name: lines, key: u64");
    assert!(message.contains("keys of topic lines are u64, those of table splitter are string"), "{message}");
    let text = WORD_COUNT.replace("topic: lines", "topic: lines, key: doc").replacen("value: json", "value: bytes", 1);
    let message = AppFile::parse(&text, "app.yaml").unwrap_err().to_string();
    assert!(message.contains("values of lines are bytes"), "{message}");
}

#[test]
fn failure_policies_that_do_not_fit() {
    assert!(refused("on_exhausted: dead-letter", "on_exhausted: dead").contains("allowed: dead-letter, park, fail"));
    assert!(refused("dead_letter_topic: rejected", "dead_letter_topic: refused").contains("unknown topic \"refused\""));
    assert!(refused("on_exhausted: dead-letter", "on_exhausted: fail").contains("although on_exhausted is neither"));
    assert!(refused("        dead_letter_topic: rejected\n", "").contains("without the key dead_letter_topic"));
    assert!(
        refused("dead_letter_topic: rejected", "dead_letter_topic: lines").contains("to which this handler subscribes")
    );
}

#[test]
fn a_value_of_the_wrong_shape() {
    assert!(
        refused("handlers: [{name: add}]", "handlers: {name: add}")
            .contains("handlers: found keys with values; allowed: a list")
    );
    assert!(refused("[{name: add}]", "[add]").contains("tables[1].handlers[0]: found \"add\"; allowed: the keys name"));
}

#[test]
fn the_apps_of_the_stock_binary_are_good() {
    for (name, text) in [
        ("word-count", include_str!("../../../examples/word-count/app.yaml")),
        ("batch-and-stream", include_str!("../../../examples/batch-and-stream/app.yaml")),
        ("fund-transfer", include_str!("../../../examples/fund-transfer/app.yaml")),
        ("orders", include_str!("../../../examples/orders/app.yaml")),
        ("rate-limiter", include_str!("../../../examples/rate-limiter/app.yaml")),
        ("user-flows", include_str!("../../../examples/user-flows/app.yaml")),
        ("loadgen", include_str!("../../../loadgen/app/loadgen.yaml")),
    ] {
        let app = AppFile::parse(text, name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(app.app, name);
    }
}

#[test]
fn a_file_that_would_hold_the_core_is_refused_at_once() {
    let many = format!("app: [{}]", "1, ".repeat(60_000));
    let deep = format!("app: {}{}", "[".repeat(40), "]".repeat(40));
    let anchor = "app: &name word-count\nlanguage: *name\n".to_owned();
    for text in [many, deep, anchor] {
        let error = AppFile::parse(&text, "app.yaml").expect_err("over a limit").to_string();
        assert!(error.contains("this is no YAML of an app file"), "{error}");
    }
}

#[test]
fn what_lives_for_a_time() {
    let app = |table: &str, map: &str| {
        let text = WORD_COUNT.replace("value: u64}", &format!("value: u64{map}}}"));
        let text = text.replace("  - name: words\n", &format!("  - name: words\n{table}"));
        AppFile::parse(&text, "app.yaml").map_err(|error| error.to_string())
    };
    let ttls = |app: AppFile| (app.tables[1].ttl, app.tables[1].maps[0].ttl);
    let day = Duration::from_secs(86_400);
    assert_eq!(app("", "").map(ttls), Ok((None, None)));
    assert_eq!(app("    ttl: 30d\n", ", ttl: 1h").map(ttls), Ok((Some(30 * day), Some(day / 24))));
    assert_eq!(app("    ttl: none\n", ", ttl: 1s").map(ttls), Ok((None, Some(Duration::from_secs(1)))));
    for wrong in ["0s", "7", "-1s", "1.5h", "500ms", "36501d", "never", "[1h]", "99999999999999999999s"] {
        let says = "allowed: none, or a whole number with a unit (s, m, h, d), from 1s to 36500d";
        let message = app(&format!("    ttl: {wrong}\n"), "").unwrap_err();
        assert!(message.contains("tables[1].ttl: found") && message.contains(says), "{wrong}: {message}");
        let message = app("", &format!(", ttl: {wrong}")).unwrap_err();
        assert!(message.contains("tables[1].maps[0].ttl: found") && message.contains(says), "{wrong}: {message}");
    }
    let message = app("    tll: 1h\n", "").unwrap_err();
    assert!(message.contains("unknown key \"tll\"") && message.contains("did you mean ttl?"), "{message}");
}

#[test]
fn configuration_is_text_by_name() {
    let text = WORD_COUNT.replace("language: rust", "language: rust\nconfig: {limit: \"10\", place: here}").replace(
        "handlers: [{name: add}]\n  - name: docs",
        "handlers: [{name: add, config: {limit: \"5\"}}]\n  - name: docs",
    );
    let app = AppFile::parse(&text, "app.yaml").unwrap();
    let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(app.config, [entry("limit", "10"), entry("place", "here")]);
    assert_eq!(app.tables[1].handlers[0].config, [entry("limit", "5")]);
    assert_eq!(app.tables[2].handlers[0].config, []);
    assert!(
        refused("language: rust", "language: rust\nconfig: {limit: 10}")
            .contains("config.limit: found the number 10; allowed: text")
    );
    assert!(refused("language: rust", "language: rust\nconfig: [a]").contains("names with their values"));
    let long = format!("language: rust\nconfig: {{a: \"{}\"}}", "x".repeat(5_000));
    assert!(refused("language: rust", &long).contains("found 5000 bytes"));
    let many: Vec<String> = (0..65).map(|n| format!("n{n}: a")).collect();
    let many = format!("language: rust\nconfig: {{{}}}", many.join(", "));
    assert!(refused("language: rust", &many).contains("found 65 values; at most 64"));
}

#[test]
fn indexes_are_of_json_values() {
    let app = |more: &str| {
        let text = format!("app: a\nlanguage: rust\ntables:\n  - {{name: docs, key: string, value: json{more}}}\n");
        AppFile::parse(&text, "app.yaml").map_err(|error| error.to_string())
    };
    let table =
        app(", indexes: [{name: by-city, field: address.city}, {name: by-age, field: age}]").unwrap().tables.remove(0);
    let told: Vec<_> = table.indexes.iter().map(|index| (index.name.as_str(), index.field.as_str())).collect();
    assert_eq!((told, table.auto_index), (vec![("by-city", "address.city"), ("by-age", "age")], false));
    assert!(app(", auto_index: true").unwrap().tables[0].auto_index);
    for (wrong, says) in [
        (
            ", indexes: [{name: a, field: a..b}]",
            "tables[0].indexes[0].field: found \"a..b\"; allowed: a field of the values",
        ),
        (", indexes: [{name: a, field: a.b.c.d.e.f.g.h.i}]", "up to 8 names"),
        (", indexes: [{name: a}]", "field"),
        (", indexes: [{name: a, fild: b}]", "unknown key \"fild\""),
        (", indexes: [{name: a, field: b}, {name: a, field: c}]", "found name a twice among the indexes of this table"),
        (
            ", indexes: [{name: a, field: b}, {name: c, field: b}]",
            "found field b twice among the indexes of this table",
        ),
        (", indexes: [{name: auto_index, field: b}]", "the name of the index of all top-level fields"),
        (", auto_index: yes please", "auto_index"),
        (", auto_indx: true", "did you mean auto_index?"),
    ] {
        let message = app(wrong).unwrap_err();
        assert!(message.contains(says), "{wrong}: {message}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("{{name: i{n}, field: f{n}}}")).collect();
    assert!(
        app(&format!(", indexes: [{}]", many.join(", "))).unwrap_err().contains("found 17 indexes; allowed: up to 16")
    );
    let bytes = "app: a\nlanguage: rust\ntables:\n  - {name: docs, key: string, value: bytes, auto_index: true}\n";
    let message = AppFile::parse(bytes, "app.yaml").unwrap_err().to_string();
    assert!(message.contains("indexes need values of type json; the values of table docs are bytes"), "{message}");
}
