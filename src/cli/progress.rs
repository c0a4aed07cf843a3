//! A line on the terminal that says how far an ingest has come.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::numbers::{grouped, rate};
use crate::ingest::Progress;

/// How often the line moves though nothing new is known.
const TICK: Duration = Duration::from_millis(120);

/// Follows one run; draws only on a terminal.
pub(super) struct Line {
    bar: ProgressBar,
    last: Arc<Mutex<Progress>>,
}

impl Line {
    /// A line on standard error, if that is a terminal and `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        let bar = if wanted && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, last: Arc::default() }
    }

    /// What a run reports to.
    pub(super) fn listener(&self) -> Arc<dyn Fn(Progress) + Send + Sync> {
        let (bar, last, started) = (self.bar.clone(), Arc::clone(&self.last), Instant::now());
        Arc::new(move |progress| {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = progress;
            if !bar.is_hidden() {
                let read = progress.counts.read;
                let speed = rate(read, progress.input_bytes, started.elapsed());
                bar.set_message(format!("{} events, {speed}", grouped(read)));
            }
        })
    }

    /// Removes the line; gives what was reported last.
    pub(super) fn end(self) -> Progress {
        self.bar.finish_and_clear();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
