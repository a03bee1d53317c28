//! Conversations with everything real: words go in as sound, through the recogniser, the Flask app
//! and the voice, and come out as sound that a caller would recognise.

mod answers;
mod caller;
mod early;
mod story;
mod voices;

use std::time::Duration;

use voxgate::cli::call::{CallReport, Step};

use crate::world::say;

/// How long a reply may stay away: generous, since CI shares its two cores.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The caller says something and hears the reply out.
pub fn ask(text: &str) -> [Step; 2] {
    [Step::Say(say(text)), Step::wait_for_reply_end(PATIENCE)]
}

/// Nothing in this call was wrong, whatever was said in it.
#[track_caller]
pub fn assert_sound(call: &CallReport) {
    assert_eq!(call.violations, []);
    assert_eq!(call.gave_up, [""; 0], "{:#?}", call.timeline);
    assert_eq!(call.unsaid, 0);
}
