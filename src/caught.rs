//! Libraries that assert what a damaged file breaks: that must cost the file, not the program.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether what panics on this thread is caught, and told in words of ours.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives, `None` where the library gave up in its middle.
pub fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let read = catch_unwind(AssertUnwindSafe(read));
    CAUGHT.set(outer);
    read.ok()
}
