//! Object stores in the cloud: from a URL, and settings by the names that `object_store` reads.
//!
//! Knows which settings belong to which scheme and what to look at when a store refuses. Reads no
//! environment: the settings are an argument.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, Result};

/// Settings as names and values, such as `AWS_REGION` and `eu-central-1`.
pub type Settings = [(String, String)];

/// How long a call is repeated that a store cannot answer just now. A commit that waits longer had
/// better tell.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RETRIES: usize = 8;

/// The schemes, with the beginning that the names of their settings have.
const SCHEMES: [(&str, &str); 3] = [("s3", "AWS_"), ("gs", "GOOGLE_"), ("az", "AZURE_")];

/// Whether a setting of this name is one of a cloud store.
pub fn is_setting(name: &str) -> bool {
    SCHEMES.iter().any(|(_, beginning)| name.starts_with(beginning))
}

/// The names that settings of a scheme begin with; `None` for one that is not of a cloud store.
pub(super) fn settings_of(scheme: &str) -> Option<&'static str> {
    SCHEMES.iter().find(|(known, _)| *known == scheme).map(|(_, beginning)| *beginning)
}

/// The store of `url` (`s3://bucket/path` and the like), and the path in it.
///
/// # Errors
/// Invalid for a URL without a bucket, for a setting that cannot be read and for one that is missing.
pub(super) fn cloud_store(url: &Url, settings: &Settings) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let beginning = settings_of(url.scheme())
        .ok_or_else(|| Error::internal(format!("`{url}` is not in a cloud")))?;
    if url.host_str().unwrap_or_default().is_empty() {
        let scheme = url.scheme();
        return Err(Error::invalid(format!(
            "`{url}` names no bucket: write {scheme}://BUCKET/FOLDER"
        )));
    }
    let wrong = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("{url}: {error}; its settings are variables {beginning}…"))
    };
    check_endpoints(settings, beginning)?;
    let retry =
        RetryConfig { max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT, ..<_>::default() };
    let address = url.as_str();
    let store: object_store::Result<Arc<dyn ObjectStore>> = match beginning {
        "AWS_" => {
            let builder = AmazonS3Builder::new().with_url(address).with_retry(retry);
            known::<AmazonS3ConfigKey>(settings, beginning)
                .fold(builder, |builder, (key, value)| builder.with_config(key, value))
                .build()
                .map(|store| Arc::new(store) as _)
        }
        "GOOGLE_" => {
            let builder = GoogleCloudStorageBuilder::new().with_url(address).with_retry(retry);
            known::<GoogleConfigKey>(settings, beginning)
                .fold(builder, |builder, (key, value)| builder.with_config(key, value))
                .build()
                .map(|store| Arc::new(store) as _)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::new().with_url(address).with_retry(retry);
            known::<AzureConfigKey>(settings, beginning)
                .fold(builder, |builder, (key, value)| builder.with_config(key, value))
                .build()
                .map(|store| Arc::new(store) as _)
        }
    };
    let store = store.map_err(|error| wrong(&error))?;
    let path = Path::from_url_path(url.path()).map_err(|error| wrong(&error))?;
    Ok((store, path))
}

/// The variables with the address of a store; others of the clouds have addresses, too.
const ADDRESSES: [&str; 5] = [
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
];

/// Refuses addresses that the clients would only stumble over later.
fn check_endpoints(settings: &Settings, beginning: &str) -> Result<()> {
    let endpoints = settings.iter().filter(|(name, value)| {
        name.starts_with(beginning) && ADDRESSES.contains(&name.as_str()) && !value.is_empty()
    });
    for (name, value) in endpoints {
        let scheme = Url::parse(value).ok().map(|url| url.scheme().to_owned());
        let allow = format!("{beginning}ALLOW_HTTP");
        let allows = settings.iter().any(|(name, value)| {
            *name == allow && ["true", "1", "yes", "on"].contains(&&*value.to_ascii_lowercase())
        });
        match scheme.as_deref() {
            Some("https") => {}
            Some("http") if allows => {}
            Some("http") => {
                return Err(Error::invalid(format!(
                    "{name} is an address without TLS: {allow}=true permits it"
                )));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "{name} is `{value}`: an address begins with https:// or http://"
                )));
            }
        }
    }
    Ok(())
}

/// Those of the settings whose name begins so and is known.
fn known<'s, K: FromStr>(
    settings: &'s Settings,
    beginning: &'s str,
) -> impl Iterator<Item = (K, &'s str)> {
    settings
        .iter()
        .filter(move |(name, _)| name.starts_with(beginning))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())))
}

/// What a store answered, in its own words without the page around them, and what to do about it.
///
/// Amazon, Google and Azure answer with `<Code>` and `<Message>`. `None` for anything else.
pub(super) fn answer_of(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let Some(code) = between(&text, "Code") else {
        let advice = match error {
            _ if code_of(error, &text).is_some() => code_of(error, &text).and_then(advice),
            _ if text.contains("error sending request") => {
                Some("check the network and the store's address")
            }
            _ => None,
        };
        let told = text.trim_end_matches([':', ' ', '\n']);
        return advice.map(|advice| format!("{told}; {advice}"));
    };
    let message = between(&text, "Message").filter(|message| !message.is_empty());
    let words = message.map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"));
    Some(match advice(code) {
        Some(advice) => format!("{words}; {advice}"),
        None => words,
    })
}

/// The code of the answer, or the one that says as much.
fn code_of<'t>(error: &object_store::Error, text: &'t str) -> Option<&'t str> {
    match error {
        _ if text.contains("<Code>") => between(text, "Code"),
        // An answer to a question for the head of something has no page.
        object_store::Error::PermissionDenied { .. } => Some("AccessDenied"),
        object_store::Error::Unauthenticated { .. } => Some("AuthenticationFailed"),
        // Where no credentials are given, those of the machine are asked for.
        _ if text.contains("169.254.169.254") => Some(NO_CREDENTIALS),
        _ => None,
    }
}

fn between<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0.lines().next().unwrap_or_default().trim())
}

/// The code of what no store says: it was not asked, for lack of credentials.
const NO_CREDENTIALS: &str = "NoCredentials";

/// What to do about an answer with this code.
fn advice(code: &str) -> Option<&'static str> {
    match code {
        "NoSuchBucket" | "ContainerNotFound" => Some("make it, or name another"),
        "AccessDenied"
        | "AllAccessDisabled"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions" => {
            Some("whoever runs this needs the right to list, read, write and delete there")
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AuthenticationFailed"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired" => Some("check the credentials in the store's variables"),
        NO_CREDENTIALS => {
            Some("no credentials are in the store's variables, and this machine has none")
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" => {
            Some("check the region in the store's variables")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_are_told_with_their_variable() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let url = Url::parse("s3://b/x").unwrap();
        for (value, allow, want) in [
            ("127.0.0.1:9000", "true", "AWS_ENDPOINT_URL is `127.0.0.1:9000`: an address begins"),
            ("garbage", "true", "AWS_ENDPOINT_URL is `garbage`"),
            ("http://127.0.0.1:9000", "false", "AWS_ALLOW_HTTP=true permits it"),
            ("http://127.0.0.1:9000", "true", ""),
            ("https://store.example", "false", ""),
        ] {
            let settings = [set("AWS_ENDPOINT_URL", value), set("AWS_ALLOW_HTTP", allow)];
            let told = cloud_store(&url, &settings).err().map(|error| error.to_string());
            assert_eq!(told.is_some(), !want.is_empty(), "{value}: {told:?}");
            assert!(told.unwrap_or_default().contains(want), "{value}");
        }
        // Addresses of other services are none of ours.
        let others = [
            set("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
            set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254"),
        ];
        assert!(cloud_store(&url, &others).is_ok());
    }

    #[test]
    fn answers_of_stores_become_words() {
        let answer = |text: &str| {
            let source = text.to_owned().into();
            answer_of(&object_store::Error::Generic { store: "S3", source })
        };
        let page = "404 Not Found: <?xml?>\n<Error><Code>NoSuchBucket</Code><Message>There is \
                    none</Message></Error>";
        assert_eq!(answer(page).unwrap(), "NoSuchBucket: There is none; make it, or name another");
        assert_eq!(answer("<Code>Odd</Code><Message></Message>").unwrap(), "Odd");
        assert_eq!(answer("the disk is gone"), None);
    }
}
