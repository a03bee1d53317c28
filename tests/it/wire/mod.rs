//! The wire of Media Streams, item by item of the conformance list (`twilio-media-streams.md`,
//! section 12), in echo mode: no service is needed, and the caller hears each utterance back.

mod control;
mod ending;
mod messages;
mod opening;
mod playout;
