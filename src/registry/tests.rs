//! Publications and definitions, in a lake in memory.

use super::*;
use crate::error::ErrorKind;
use crate::lake::location::{Location, Namespace};
use crate::lake::tables::Lake;

async fn table(name: &str) -> Table {
    let location = Location::parse(&format!("memory://{name}")).unwrap();
    Lake::open_or_create(&location, &Namespace::default()).await.unwrap().events
}

fn meter(text: &str, table: &str) -> (Meter, Bundle) {
    let tables = [("region".to_owned(), table.to_owned())];
    let bundle = Bundle { file: "m.yaml".to_owned(), text: text.to_owned(), tables: tables.into() };
    (bundle.meter().unwrap(), bundle)
}

const TEXT: &str = "meter: m\naggregation: count\n\
    lookups: { region: { of: dc, file: r.csv, key: dc, value: region } }\n";

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

const NOW: &str = "2026-11-01T12:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_is_the_same_meter_without_its_files() {
    let table = table("registry-same").await;
    let (one, bundle) = meter(TEXT, "dc,region\nfra1,eu\n");
    let terms = Terms { by: Some("me".into()), reason: Some("first".into()), ..Terms::default() };
    assert!(publish(&table, (&one, &bundle), &terms, at(NOW)).await.unwrap().made);
    let kept = definition(&table, "m", &version(&one)).await.unwrap();
    assert_eq!(kept, one);
    let all = publications(&table, "m").await.unwrap();
    let want = Publication {
        version: version(&one),
        from: None,
        at: NOW.to_owned(),
        by: Some("me".into()),
        reason: Some("first".into()),
    };
    assert_eq!(all, [want]);
    assert_eq!(names(&table).await.unwrap(), ["m"]);
    assert_eq!(find(&table, "m", &version(&one)[..4]).await.unwrap(), version(&one));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_again_changes_nothing_and_another_table_is_another_version() {
    let table = table("registry-again").await;
    let (one, bundle) = meter(TEXT, "dc,region\nfra1,eu\n");
    let terms = Terms::default();
    assert!(publish(&table, (&one, &bundle), &terms, at(NOW)).await.unwrap().made);
    assert!(!publish(&table, (&one, &bundle), &terms, at(NOW)).await.unwrap().made);
    let from = Terms { from: Some(at("2026-12-01T00:00:00Z")), ..Terms::default() };
    assert!(!publish(&table, (&one, &bundle), &from, at(NOW)).await.unwrap().made);
    let (two, bundle_two) = meter(TEXT, "dc,region\nfra1,europe\n");
    assert!(publish(&table, (&two, &bundle_two), &from, at(NOW)).await.unwrap().made);
    assert!(!publish(&table, (&two, &bundle_two), &from, at(NOW)).await.unwrap().made);
    let all = publications(&table, "m").await.unwrap();
    let versions: Vec<&str> = all.iter().map(|each| each.version.as_str()).collect();
    assert_eq!(versions, [version(&one), version(&two)]);
    assert_eq!(definition(&table, "m", versions[0]).await.unwrap(), one);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_found_or_trusted_is_told() {
    let table = table("registry-wrong").await;
    let (one, bundle) = meter(TEXT, "dc,region\nfra1,eu\n");
    let of = |error: Error| (error.kind(), error.to_string());
    let (kind, message) = of(find(&table, "m", "abcd").await.unwrap_err());
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.contains("never published"), "{message}");
    for name in ["../x", "a/b", "M", ""] {
        assert_eq!(publications(&table, name).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    for prefix in ["abc", "ABCD", "..%2f", "0123456789abc"] {
        let (kind, message) = of(find(&table, "m", prefix).await.unwrap_err());
        assert_eq!(kind, ErrorKind::Invalid, "{message}");
    }
    let other = Bundle { text: TEXT.replace("count", "count\nevent: e"), ..bundle.clone() };
    let terms = Terms::default();
    let (kind, _) = of(publish(&table, (&one, &other), &terms, at(NOW)).await.unwrap_err());
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(names(&table).await.unwrap().is_empty());
    // A definition that says something else than its name.
    let stored = StoredDefinition {
        meter: "m".into(),
        version: version(&one),
        normalised: String::new(),
        definition: other,
    };
    let file = definition_file(&version(&one));
    table.put_note("meters/m", &file, encode(&stored).unwrap()).await.unwrap();
    let (kind, message) = of(publish(&table, (&one, &bundle), &terms, at(NOW)).await.unwrap_err());
    assert_eq!(kind, ErrorKind::Corrupt, "{message}");
    assert!(message.contains("reads as version"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_at_the_same_time_lose_nothing() {
    let table = table("registry-race").await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..6 {
        let table = table.clone();
        let text = TEXT.replace("count", &format!("count\nevent: e{number}"));
        all.spawn(async move {
            let (meter, bundle) = meter(&text, "dc,region\nfra1,eu\n");
            let terms = Terms::default();
            assert!(publish(&table, (&meter, &bundle), &terms, at(NOW)).await.unwrap().made);
            version(&meter)
        });
    }
    let mut want: Vec<String> = all.join_all().await;
    let kept = publications(&table, "m").await.unwrap();
    let last = kept.last().unwrap().version.clone();
    let mut got: Vec<String> = kept.iter().map(|each| each.version.clone()).collect();
    want.sort();
    got.sort();
    assert_eq!(got, want);
    assert_eq!(Schedule::of(&kept).last(), Some(last.as_str()));
}
