//! Who is at work, as the log of versions names them.

/// Names the actor where the account at work says too little, such as a scheduled job.
const ACTOR: &str = "METERHOUSE_ACTOR";

/// `METERHOUSE_ACTOR`, or `user@host` as far as they are known.
pub(super) fn actor() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    if let Some(actor) = variable(ACTOR) {
        return Some(actor);
    }
    let user = variable("USER").or_else(|| variable("LOGNAME")).or_else(|| variable("USERNAME"));
    let host = variable("HOSTNAME").or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    match (user, host) {
        (Some(user), Some(host)) => Some(format!("{user}@{host}")),
        (user, host) => user.or(host),
    }
}
