//! What each format makes of each type, and what happens when nobody reads.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    Decimal256Array, DictionaryArray, DurationSecondArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, ListArray, MapBuilder, NullArray, StringArray, StringBuilder,
    StringViewArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int32Type, Schema, i256};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn rendered(format: OutputFormat, batches: &[RecordBatch]) -> String {
    String::from_utf8(bytes_of(format, batches)).unwrap()
}

fn bytes_of(format: OutputFormat, batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut renderer = Renderer::new(format, &batches[0].schema(), &mut out).unwrap();
    for batch in batches {
        assert_eq!(renderer.write(batch).unwrap(), Reader::Present);
    }
    assert_eq!(renderer.finish().unwrap(), Reader::Present);
    out
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<StringArray>())
}

fn usage() -> RecordBatch {
    batch(vec![
        ("customer_id", texts(&[Some("a"), None, Some("")])),
        (
            "value",
            Arc::new(
                Decimal128Array::from(vec![Some(1_500_000), Some(-20), None])
                    .with_precision_and_scale(38, 3)
                    .unwrap(),
            ),
        ),
        ("events", Arc::new(Int64Array::from(vec![12, 3, 100]))),
        ("note", texts(&[Some("plain"), Some("with, comma"), Some("a \"word\"\nmore")])),
    ])
}

#[test]
fn formats_show_the_same_rows_each_in_its_way() {
    let want_table = "\
customer_id | value | events | note
------------+-------+--------+---------------
a           |  1500 |     12 | plain
NULL        | -0.02 |      3 | with, comma
            |  NULL |    100 | a \"word\"\\nmore
";
    let want_csv = "\
customer_id,value,events,note
a,1500,12,plain
,-0.02,3,\"with, comma\"
\"\",,100,\"a \"\"word\"\"\nmore\"
";
    let objects = [
        r#"{"customer_id":"a","value":"1500","events":12,"note":"plain"}"#,
        r#"{"customer_id":null,"value":"-0.02","events":3,"note":"with, comma"}"#,
        r#"{"customer_id":"","value":null,"events":100,"note":"a \"word\"\nmore"}"#,
    ];
    for (format, want) in [
        (OutputFormat::Table, want_table.to_owned()),
        (OutputFormat::Csv, want_csv.to_owned()),
        (OutputFormat::Json, format!("[\n{}\n]\n", objects.join(",\n"))),
        (OutputFormat::Ndjson, format!("{}\n", objects.join("\n"))),
    ] {
        assert_eq!(rendered(format, &[usage()]), want, "{format:?} of one batch");
        let rows: Vec<_> = (0..3).map(|row| usage().slice(row, 1)).collect();
        assert_eq!(rendered(format, &rows), want, "{format:?} of a batch per row");
    }
}

#[test]
fn no_rows_still_show_the_columns() {
    for (format, want) in [
        (
            OutputFormat::Table,
            "customer_id | value | events | note\n------------+-------+--------+-----\n",
        ),
        (OutputFormat::Csv, "customer_id,value,events,note\n"),
        (OutputFormat::Json, "[]\n"),
        (OutputFormat::Ndjson, ""),
    ] {
        assert_eq!(rendered(format, &[usage().slice(0, 0)]), want, "{format:?}");
    }
}

/// One value per Arrow type: name, array of one row, its CSV, its JSON.
fn types() -> Vec<(&'static str, ArrayRef, &'static str, &'static str)> {
    let noon = 1_431_864_000;
    let micros = || TimestampMicrosecondArray::from(vec![noon * 1_000_000 + 250_000]);
    let decimal = |value: i128, precision, scale| -> ArrayRef {
        let array = Decimal128Array::from(vec![value]);
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    };
    let largest = Decimal256Array::from(vec![i256::from_i128(i128::MAX)]);
    let level = StringArray::from(vec![Some("x\ty")]);
    vec![
        ("a null of no type", Arc::new(NullArray::new(1)), "", "null"),
        ("true", Arc::new(BooleanArray::from(vec![true])), "true", "true"),
        ("a small integer", Arc::new(Int8Array::from(vec![-128])), "-128", "-128"),
        (
            "an integer no float holds",
            Arc::new(UInt64Array::from(vec![u64::MAX])),
            "18446744073709551615",
            "18446744073709551615",
        ),
        ("a tenth", Arc::new(Float64Array::from(vec![0.1])), "0.1", "0.1"),
        ("a narrow tenth", Arc::new(Float32Array::from(vec![0.1])), "0.1", "0.1"),
        ("a whole float", Arc::new(Float64Array::from(vec![5.0])), "5.0", "5.0"),
        ("a huge float", Arc::new(Float64Array::from(vec![1e300])), "1e300", "1e300"),
        ("no number", Arc::new(Float64Array::from(vec![f64::NAN])), "NaN", "\"NaN\""),
        (
            "less than any number",
            Arc::new(Float32Array::from(vec![f32::NEG_INFINITY])),
            "-Infinity",
            "\"-Infinity\"",
        ),
        ("a decimal zero", decimal(0, 38, 18), "0", "\"0\""),
        (
            "a decimal below one",
            decimal(-1, 38, 18),
            "-0.000000000000000001",
            "\"-0.000000000000000001\"",
        ),
        ("a whole decimal", decimal(5_000, 10, 3), "5", "\"5\""),
        ("a decimal of thousands", decimal(-5, 10, -3), "-5000", "\"-5000\""),
        ("a decimal wider than declared", decimal(1_234_567, 5, 2), "12345.67", "\"12345.67\""),
        (
            "a wide decimal",
            Arc::new(largest.with_precision_and_scale(76, 38).unwrap()),
            "1.70141183460469231731687303715884105727",
            "\"1.70141183460469231731687303715884105727\"",
        ),
        ("a date", Arc::new(Date32Array::from(vec![-1])), "1969-12-31", "\"1969-12-31\""),
        ("a date in ms", Arc::new(Date64Array::from(vec![-1])), "1969-12-31", "\"1969-12-31\""),
        (
            "a time without a zone",
            Arc::new(TimestampSecondArray::from(vec![noon])),
            "2015-05-17T12:00:00",
            "\"2015-05-17T12:00:00\"",
        ),
        (
            "a time in UTC",
            Arc::new(micros().with_timezone("UTC")),
            "2015-05-17T12:00:00.25Z",
            "\"2015-05-17T12:00:00.25Z\"",
        ),
        (
            "a time in a named zone",
            Arc::new(micros().with_timezone("America/Los_Angeles")),
            "2015-05-17T05:00:00.25-07:00",
            "\"2015-05-17T05:00:00.25-07:00\"",
        ),
        (
            "a time at an offset",
            Arc::new(micros().with_timezone("+05:45")),
            "2015-05-17T17:45:00.25+05:45",
            "\"2015-05-17T17:45:00.25+05:45\"",
        ),
        (
            "a nanosecond before the epoch",
            Arc::new(TimestampNanosecondArray::from(vec![-1]).with_timezone("+00:00")),
            "1969-12-31T23:59:59.999999999Z",
            "\"1969-12-31T23:59:59.999999999Z\"",
        ),
        (
            "a time of day",
            Arc::new(Time64MicrosecondArray::from(vec![61_500_000])),
            "00:01:01.500",
            "\"00:01:01.500\"",
        ),
        ("a duration", Arc::new(DurationSecondArray::from(vec![90])), "PT90S", "\"PT90S\""),
        ("a text view", Arc::new(StringViewArray::from(vec!["ä"])), "ä", "\"ä\""),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])), "00ff", "\"00ff\""),
        (
            "a dictionary",
            Arc::new(vec!["word"].into_iter().collect::<DictionaryArray<Int32Type>>()),
            "word",
            "\"word\"",
        ),
        (
            "a list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])])),
            "\"[1,null]\"",
            "[1,null]",
        ),
        (
            "a struct",
            Arc::new(StructArray::from(vec![(
                Arc::new(Field::new("level", level.data_type().clone(), true)),
                Arc::new(level) as ArrayRef,
            )])),
            r#""{""level"":""x\ty""}""#,
            r#"{"level":"x\ty"}"#,
        ),
        ("a map", Arc::new(map()), r#""{""k"":""v"",""n"":null}""#, r#"{"k":"v","n":null}"#),
    ]
}

fn map() -> arrow::array::MapArray {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    builder.keys().append_value("k");
    builder.values().append_value("v");
    builder.keys().append_value("n");
    builder.values().append_null();
    builder.append(true).unwrap();
    builder.finish()
}

#[test]
fn every_type_has_one_exact_text() {
    for (name, array, csv, json) in types() {
        let one = batch(vec![("c", array)]);
        let lines = std::slice::from_ref(&one);
        assert_eq!(rendered(OutputFormat::Csv, lines), format!("c\n{csv}\n"), "{name}");
        assert_eq!(rendered(OutputFormat::Ndjson, lines), format!("{{\"c\":{json}}}\n"), "{name}");
        let parsed: serde_json::Value =
            serde_json::from_str(&rendered(OutputFormat::Json, lines)).unwrap();
        assert!(parsed[0].get("c").is_some(), "{name}");
    }
}

#[test]
fn a_null_in_a_dictionary_is_null_wherever_it_is_stored() {
    let in_keys: DictionaryArray<Int32Type> = [Some("a"), None].into_iter().collect();
    let values = Arc::new(StringArray::from(vec![Some("a"), None]));
    let in_values = DictionaryArray::new(Int32Array::from(vec![0, 1]), values);
    for (name, array) in [("in its keys", in_keys), ("in its values", in_values)] {
        let rows = batch(vec![("c", Arc::new(array)), ("d", texts(&[Some("x"), Some("y")]))]);
        assert_eq!(rendered(OutputFormat::Csv, &[rows]), "c,d\na,x\n,y\n", "{name}");
    }
}

#[test]
fn a_table_shows_no_character_that_steers_a_terminal() {
    for (name, text, want) in [
        ("an escape sequence", "\u{1b}[31mred", r"\u{1b}[31mred"),
        ("a bell and a backspace", "\u{7}\u{8}", r"\u{7}\u{8}"),
        ("line breaks and a tab", "a\r\nb\tc", r"a\r\nb\tc"),
        ("DEL and a C1 control", "\u{7f}\u{9b}2J", r"\u{7f}\u{9b}2J"),
        ("a line separator", "a\u{2028}b", r"a\u{2028}b"),
        ("an override of direction", "a\u{202e}gpj.exe", r"a\u{202e}gpj.exe"),
        ("an isolate", "\u{2066}x\u{2069}", r"\u{2066}x\u{2069}"),
        ("letters of any script stay", "Ωж日本é", "Ωж日本é"),
        ("a backslash stays", r"\xe4", r"\xe4"),
    ] {
        let rows = batch(vec![("c", texts(&[Some(text)]))]);
        let table = rendered(OutputFormat::Table, &[rows]);
        assert_eq!(table.lines().nth(2), Some(want), "{name} as a value");
        let rows = batch(vec![(text, texts(&[Some("v")]))]);
        let table = rendered(OutputFormat::Table, &[rows]);
        assert_eq!(table.lines().next(), Some(want), "{name} as a column");
    }
}

#[test]
fn a_table_aligns_by_width_on_the_screen() {
    let plain = batch(vec![
        ("city", texts(&[Some("日本"), Some("Köln"), Some("e\u{301}")])),
        ("n", texts(&[Some("1"), Some("22.5"), None])),
    ]);
    let numeric = HashMap::from([(NUMERIC_TEXT.to_owned(), String::new())]);
    let fields: Vec<_> = plain.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    let fields = vec![fields[0].clone(), fields[1].clone().with_metadata(numeric)];
    let schema = Arc::new(Schema::new(fields));
    let marked = RecordBatch::try_new(schema, plain.columns().to_vec()).unwrap();
    for (name, rows, want) in [
        (
            "texts to the left",
            plain,
            "city | n\n-----+-----\n日本 | 1\nKöln | 22.5\ne\u{301}    | NULL\n",
        ),
        (
            "texts that are numbers to the right",
            marked,
            "city |    n\n-----+-----\n日本 |    1\nKöln | 22.5\ne\u{301}    | NULL\n",
        ),
    ] {
        assert_eq!(rendered(OutputFormat::Table, &[rows]), want, "{name}");
    }
}

#[test]
fn a_long_table_keeps_the_widths_of_its_beginning() {
    let first = batch(vec![
        ("a", texts(&vec![Some("xx"); 10_000])),
        ("b", texts(&vec![Some("y"); 10_000])),
    ]);
    let later =
        batch(vec![("a", texts(&[Some("longer"), Some("z")])), ("b", texts(&[Some("y"); 2]))]);
    let mut out = Vec::new();
    let mut renderer = Renderer::new(OutputFormat::Table, &first.schema(), &mut out).unwrap();
    assert_eq!(renderer.write(&first).unwrap(), Reader::Present);
    assert_eq!(renderer.write(&later).unwrap(), Reader::Present);
    drop(renderer);
    let table = String::from_utf8(out).unwrap();
    assert_eq!(table.lines().count(), 10_004, "the later rows do not wait for the end");
    let tail: Vec<_> = table.lines().skip(10_001).collect();
    assert_eq!(tail, ["xx | y", "longer | y", "z  | y"]);
}

#[test]
fn parquet_reads_back_as_it_was() {
    let file = bytes_of(OutputFormat::Parquet, &[usage(), usage()]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
    let codec = reader.metadata().row_group(0).column(0).compression();
    assert!(matches!(codec, Compression::ZSTD(_)), "compressed by {codec}");
    let read: Vec<_> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    let want = arrow::compute::concat_batches(&usage().schema(), &[usage(), usage()]).unwrap();
    assert_eq!(arrow::compute::concat_batches(&want.schema(), &read).unwrap(), want);
}

#[test]
fn a_time_beyond_the_calendar_is_an_error_that_names_it() {
    let rows = batch(vec![("t", Arc::new(TimestampSecondArray::from(vec![i64::MAX])))]);
    let mut renderer = Renderer::new(OutputFormat::Csv, &rows.schema(), Vec::new()).unwrap();
    let error = renderer.write(&rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("9223372036854775807"), "{error}");
}

#[test]
fn a_batch_of_other_columns_is_refused() {
    let mut renderer = Renderer::new(OutputFormat::Csv, &usage().schema(), Vec::new()).unwrap();
    let error = renderer.write(&batch(vec![("c", texts(&[None]))])).unwrap_err();
    assert_eq!(error.to_string(), "a batch of 1 columns was written to an answer of 4");
}

/// Takes `room` bytes and then fails with `kind`.
struct Narrow {
    room: usize,
    kind: io::ErrorKind,
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        if taken == 0 && !bytes.is_empty() { Err(self.kind.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FORMATS: [OutputFormat; 5] = [
    OutputFormat::Table,
    OutputFormat::Csv,
    OutputFormat::Json,
    OutputFormat::Ndjson,
    OutputFormat::Parquet,
];

/// Writes until something is not as usual.
fn outcome(format: OutputFormat, out: Narrow) -> Result<Reader> {
    let mut renderer = Renderer::new(format, &usage().schema(), out)?;
    for _ in 0..3 {
        if renderer.write(&usage())? == Reader::Gone {
            // Going on is harmless.
            assert_eq!(renderer.write(&usage())?, Reader::Gone);
            break;
        }
    }
    renderer.finish()
}

#[test]
fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
    for format in FORMATS {
        for room in [0, 1, 50] {
            let pipe = Narrow { room, kind: io::ErrorKind::BrokenPipe };
            assert_eq!(outcome(format, pipe).unwrap(), Reader::Gone, "{format:?} after {room}");
            let disk = Narrow { room, kind: io::ErrorKind::StorageFull };
            let error = outcome(format, disk).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{format:?} after {room}");
        }
    }
}
