//! How foreign records become events: which of their fields is what.
//!
//! Written as a small YAML file or given on the command line. A field that the mapping does not
//! name keeps its name: those of the envelope are taken as such, all others become properties.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::time::{EpochUnit, parse_zone};

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
        }
    }
}

/// The mapping file. A plain text names a field; `{ value: … }` is a constant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MappingFile {
    idempotency_key: Option<KeySpec>,
    event_name: Option<OriginSpec>,
    customer_id: Option<OriginSpec>,
    resource_id: Option<OriginSpec>,
    source: Option<OriginSpec>,
    timestamp: Option<TimestampSpec>,
    timezone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum KeySpec {
    Field(String),
    Fields { fields: Vec<String> },
    Content { content: bool },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OriginSpec {
    Field(String),
    Constant { value: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TimestampSpec {
    Field(String),
    Form { field: String, format: Option<String>, epoch: Option<String> },
}

impl Mapping {
    /// Reads a mapping file's text; `file` names it in messages.
    ///
    /// # Errors
    /// Text that is no mapping, an unknown key, zone or epoch unit.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let read: MappingFile = serde_saphyr::from_str(text)
            .map_err(|error| Error::invalid(format!("{file}: {error}")))?;
        let mut mapping = Self::default();
        if let Some(key) = read.idempotency_key {
            mapping.key = match key {
                KeySpec::Field(field) => KeyOrigin::Field(field),
                KeySpec::Fields { fields } if !fields.is_empty() => KeyOrigin::Fields(fields),
                KeySpec::Content { content: true } => KeyOrigin::Content,
                KeySpec::Fields { .. } | KeySpec::Content { content: false } => {
                    return Err(Error::invalid(format!(
                        "{file}: `idempotency_key` must be a field, {{ fields: [a, b] }} or {{ content: true }}"
                    )));
                }
            };
        }
        for (key, place, spec) in [
            ("event_name", &mut mapping.event_name, read.event_name),
            ("customer_id", &mut mapping.customer_id, read.customer_id),
            ("resource_id", &mut mapping.resource_id, read.resource_id),
            ("source", &mut mapping.source, read.source),
        ] {
            match spec {
                Some(OriginSpec::Field(field)) => *place = Origin::Field(field),
                Some(OriginSpec::Constant { value }) if value.is_empty() => {
                    return Err(Error::invalid(format!(
                        "{file}: `{key}` has the constant ``: name a text, or leave the key out"
                    )));
                }
                Some(OriginSpec::Constant { value }) => *place = Origin::Constant(value),
                None => {}
            }
        }
        match read.timestamp {
            Some(TimestampSpec::Field(field)) => mapping.timestamp = field,
            Some(TimestampSpec::Form { field, format, epoch }) => {
                mapping.timestamp = field;
                mapping.timestamp_form = timestamp_form(format, epoch.as_deref(), file)?;
            }
            None => {}
        }
        mapping.zone = read.timezone.as_deref().map(parse_zone).transpose()?;
        Ok(mapping)
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
            Some(unit) => timestamp_form(None, Some(unit), "--timestamp-format")?,
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
        if self.timestamp != default.timestamp {
            named.push(("timestamp", self.timestamp.clone()));
        }
        named
    }

    /// The fields of a record that the envelope is made of.
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
        fields.chain(key).chain([self.timestamp.clone()]).collect()
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

fn timestamp_form(
    format: Option<String>,
    epoch: Option<&str>,
    place: &str,
) -> Result<TimestampForm> {
    match (format, epoch) {
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "{place}: a timestamp has either `format` or `epoch`, not both"
        ))),
        (Some(pattern), None) => Ok(TimestampForm::Pattern(pattern)),
        (None, Some("s")) => Ok(TimestampForm::Epoch(EpochUnit::Seconds)),
        (None, Some("ms")) => Ok(TimestampForm::Epoch(EpochUnit::Millis)),
        (None, Some("us")) => Ok(TimestampForm::Epoch(EpochUnit::Micros)),
        (None, Some("ns")) => Ok(TimestampForm::Epoch(EpochUnit::Nanos)),
        (None, Some(other)) => {
            Err(Error::invalid(format!("{place}: unknown epoch unit `{other}`: s, ms, us or ns")))
        }
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
    fn what_is_wrong_is_named() {
        for (name, result, want) in [
            ("unknown key", Mapping::parse("customer: x\n", "m.yaml").err(), "customer"),
            (
                "empty constant",
                Mapping::parse("source: { value: '' }\n", "m.yaml").err(),
                "m.yaml: `source` has the constant ``",
            ),
            ("no equals sign", Mapping::default().set("customer_id").err(), "write FIELD=COLUMN"),
            ("unknown field", Mapping::default().set("user=x").err(), "`user` is no field"),
            ("epoch unit", Mapping::default().set_timestamp_format("epoch:h").err(), "`h`"),
        ] {
            let message = result.map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(want), "{name}: {message}");
        }
    }
}
