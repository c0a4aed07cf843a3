//! How foreign records become events: which of their fields is what.
//!
//! Written as a small YAML file or given on the command line. A field that the mapping does not
//! name keeps its name: those of the envelope are taken as such, all others become properties.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::time::EpochUnit;

mod file;

/// Where the value of an envelope field comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A field of the record, nested ones as `a.b`.
    Field(String),
    /// The same text for every record.
    Constant(String),
}

/// Where the identity of an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// A field of the record.
    Field(String),
    /// Several fields, joined.
    Fields(Vec<String>),
    /// The whole record: records that are equal in every field are one event.
    Content,
}

/// How the text or number of a timestamp is read.
#[derive(Debug, Clone, PartialEq)]
pub enum TimestampForm {
    /// RFC 3339; texts without an offset are local times of the mapping's zone, if it has one.
    Text,
    /// By a `strptime` pattern, in the mapping's zone where it has no offset.
    Pattern(String),
    /// Units since 1970.
    Epoch(EpochUnit),
    /// Seconds since 1970 where the text is a number, else RFC 3339.
    SecondsOrText,
}

/// What each field of a foreign record is.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// The identity.
    pub key: KeyOrigin,
    /// `event_name`.
    pub event_name: Origin,
    /// `customer_id`.
    pub customer_id: Origin,
    /// `resource_id`.
    pub resource_id: Origin,
    /// `source`.
    pub source: Origin,
    /// `timestamp`, from this field.
    pub timestamp: String,
    /// How that is read.
    pub timestamp_form: TimestampForm,
    /// The zone of local times.
    pub zone: Option<TimeZone>,
    /// Whether a record without the named timestamp is refused, rather than dated by its receipt.
    pub timestamp_required: bool,
    /// The field whose members are properties of their own names.
    pub properties: String,
    /// Whether that field, where it is there, must hold an object.
    pub properties_object: bool,
    /// Fields that are no properties.
    pub left_out: Vec<String>,
}

impl Default for Mapping {
    fn default() -> Self {
        let same = |name: &str| Origin::Field(name.to_owned());
        Self {
            key: KeyOrigin::Field("idempotency_key".to_owned()),
            event_name: same("event_name"),
            customer_id: same("customer_id"),
            resource_id: same("resource_id"),
            source: same("source"),
            timestamp: "timestamp".to_owned(),
            timestamp_form: TimestampForm::Text,
            zone: None,
            timestamp_required: true,
            properties: "properties".to_owned(),
            properties_object: false,
            left_out: Vec::new(),
        }
    }
}

impl Mapping {
    /// Reads a mapping file's text; `file` names it in messages.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each with its place.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        file::parse(text, file).map_err(Into::into)
    }

    /// Applies one `--map` argument, such as `customer_id=CustomerID`.
    ///
    /// # Errors
    /// No `=`, or a left side that is no field of events.
    pub fn set(&mut self, argument: &str) -> Result<()> {
        let Some((to, from)) = argument.split_once('=') else {
            return Err(Error::invalid(format!(
                "--map `{argument}`: write FIELD=COLUMN, such as customer_id=CustomerID"
            )));
        };
        let field = Origin::Field(from.to_owned());
        match to {
            "idempotency_key" => self.key = KeyOrigin::Field(from.to_owned()),
            "event_name" => self.event_name = field,
            "customer_id" => self.customer_id = field,
            "resource_id" => self.resource_id = field,
            "source" => self.source = field,
            "timestamp" => from.clone_into(&mut self.timestamp),
            other => {
                return Err(Error::invalid(format!(
                    "--map `{argument}`: `{other}` is no field of events; they are \
                     idempotency_key, event_name, customer_id, resource_id, source and timestamp"
                )));
            }
        }
        Ok(())
    }

    /// Applies `--key`: `content`, or fields separated by commas.
    pub fn set_key(&mut self, argument: &str) {
        self.key = match argument {
            "content" => KeyOrigin::Content,
            fields if fields.contains(',') => {
                KeyOrigin::Fields(fields.split(',').map(|f| f.trim().to_owned()).collect())
            }
            field => KeyOrigin::Field(field.to_owned()),
        };
    }

    /// Applies `--timestamp-format`: a `strptime` pattern, or `epoch:s`, `epoch:ms`, `epoch:us`,
    /// `epoch:ns`.
    ///
    /// # Errors
    /// An unknown unit.
    pub fn set_timestamp_format(&mut self, argument: &str) -> Result<()> {
        let form = match argument.strip_prefix("epoch:") {
            Some(unit) => timestamp_form(None, Some(unit))
                .map_err(|message| Error::invalid(format!("--timestamp-format: {message}")))?,
            None => TimestampForm::Pattern(argument.to_owned()),
        };
        self.timestamp_form = form;
        Ok(())
    }

    /// Fields of events, with the fields of a record that were named for them: those that are not
    /// the default.
    pub fn named_fields(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        let mut named = Vec::new();
        if self.key != default.key {
            let fields = key_fields(&self.key).iter();
            named.extend(fields.map(|field| ("idempotency_key", field.clone())));
        }
        for (name, origin, same) in [
            ("event_name", &self.event_name, &default.event_name),
            ("customer_id", &self.customer_id, &default.customer_id),
            ("resource_id", &self.resource_id, &default.resource_id),
            ("source", &self.source, &default.source),
        ] {
            match origin {
                Origin::Field(field) if origin != same => named.push((name, field.clone())),
                Origin::Field(_) | Origin::Constant(_) => {}
            }
        }
        // Whoever says how an instant is written means that there is one.
        if self.timestamp != default.timestamp || self.timestamp_form != default.timestamp_form {
            named.push(("timestamp", self.timestamp.clone()));
        }
        named
    }

    /// The fields of a record that the envelope is made of, or that are left out.
    pub fn used_fields(&self) -> BTreeSet<String> {
        let origins = [&self.event_name, &self.customer_id, &self.resource_id, &self.source];
        let fields = origins.into_iter().filter_map(|origin| match origin {
            Origin::Field(field) => Some(field.clone()),
            Origin::Constant(_) => None,
        });
        let key = match &self.key {
            KeyOrigin::Field(field) => Some(field.clone()),
            // Fields that only identify together carry meaning of their own, and stay properties.
            KeyOrigin::Fields(_) | KeyOrigin::Content => None,
        };
        let left_out = self.left_out.iter().cloned();
        fields.chain(key).chain([self.timestamp.clone()]).chain(left_out).collect()
    }
}

/// The fields of `key`, none if it is the record's whole content.
fn key_fields(key: &KeyOrigin) -> &[String] {
    match key {
        KeyOrigin::Field(field) => std::slice::from_ref(field),
        KeyOrigin::Fields(fields) => fields,
        KeyOrigin::Content => &[],
    }
}

fn timestamp_form(format: Option<String>, epoch: Option<&str>) -> Result<TimestampForm, String> {
    match (format, epoch) {
        (Some(_), Some(_)) => {
            Err("a timestamp has either `format` or `epoch`, not both".to_owned())
        }
        (Some(pattern), None) => Ok(TimestampForm::Pattern(pattern)),
        (None, Some("s")) => Ok(TimestampForm::Epoch(EpochUnit::Seconds)),
        (None, Some("ms")) => Ok(TimestampForm::Epoch(EpochUnit::Millis)),
        (None, Some("us")) => Ok(TimestampForm::Epoch(EpochUnit::Micros)),
        (None, Some("ns")) => Ok(TimestampForm::Epoch(EpochUnit::Nanos)),
        (None, Some(other)) => Err(format!("unknown epoch unit `{other}`: s, ms, us or ns")),
        (None, None) => Ok(TimestampForm::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_file_names_fields_constants_and_zones() {
        let text = "idempotency_key: { fields: [InvoiceNo, StockCode] }\n\
                    customer_id: CustomerID\n\
                    event_name: { value: invoice_line }\n\
                    timestamp: { field: InvoiceDate, format: '%Y-%m-%d %H:%M:%S' }\n\
                    timezone: Europe/London\n";
        let mapping = Mapping::parse(text, "m.yaml").unwrap();
        assert_eq!(mapping.key, KeyOrigin::Fields(vec!["InvoiceNo".into(), "StockCode".into()]));
        assert_eq!(mapping.event_name, Origin::Constant("invoice_line".into()));
        assert_eq!(mapping.customer_id, Origin::Field("CustomerID".into()));
        assert_eq!(mapping.timestamp_form, TimestampForm::Pattern("%Y-%m-%d %H:%M:%S".into()));
        assert_eq!(mapping.source, Origin::Field("source".into()));
    }

    #[test]
    fn constants_are_taken_as_they_are_written() {
        for (text, want) in [("no", "no"), ("0.10", "0.10"), ("'a b'", "a b"), ("1e3", "1e3")] {
            let mapping =
                Mapping::parse(&format!("source: {{ value: {text} }}"), "m.yaml").unwrap();
            assert_eq!(mapping.source, Origin::Constant(want.to_owned()), "{text}");
        }
        let mapping = Mapping::parse("source: no\n", "m.yaml").unwrap();
        assert_eq!(mapping.source, Origin::Field("no".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let parse = |text| Mapping::parse(text, "m.yaml").err();
        for (name, result, want) in [
            (
                "unknown key",
                parse("customer: x\n"),
                "m.yaml:1:1: unknown key `customer`\n  |\n1 | customer: x\n  | ^^^^^^^^",
            ),
            ("empty constant", parse("source: { value: '' }\n"), "m.yaml:1:18: `value` is empty"),
            ("list of one field", parse("customer_id: [a]\n"), "needs a text, not a list"),
            ("two origins", parse("idempotency_key: {fields: [a], content: true}"), "one origin"),
            ("no fields", parse("idempotency_key: {fields: []}"), "one origin"),
            ("content: false", parse("idempotency_key: {content: false}"), "one origin"),
            ("format and epoch", parse("timestamp: {field: t, format: x, epoch: s}"), "not both"),
            ("unknown zone", parse("timezone: Europe/Lndon"), "m.yaml:1:11: "),
            ("the text of nothing", parse(""), "file holds no mapping"),
            ("no equals sign", Mapping::default().set("customer_id").err(), "write FIELD=COLUMN"),
            ("unknown field", Mapping::default().set("user=x").err(), "`user` is no field"),
            ("epoch unit", Mapping::default().set_timestamp_format("epoch:h").err(), "`h`"),
        ] {
            let message = result.map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(want), "{name}: {message}");
        }
    }
}
