//! Recording, as the gateway does it: a tape for each call, where the configuration says so, and an
//! end to the old ones. A folder that cannot be written to costs tapes, never calls.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tracing::{info, warn};

use super::gateway::Gateway;
use crate::call::Settings;
use crate::config::Recording;
use crate::observe::Metrics;
use crate::tape::{CallIds, Conductor, Done, Header, Recorder, Tapes, sweep};
use crate::twilio::Start;

/// How often old tapes are looked for.
const LOOK: Duration = Duration::from_secs(30);

/// `None` where calls are not recorded.
pub(super) fn open(recording: &Recording, metrics: &Arc<Metrics>) -> Option<Tapes> {
    let metrics = metrics.clone();
    let tapes = Tapes::new(recording.folder.as_deref()?, move |done| tell(&metrics, &done));
    if let Err(error) = tapes.prepare() {
        let folder = tapes.folder().display();
        let detail = "calls go on, but are not recorded";
        warn!(%folder, why = %error, detail, "TAPES_UNWRITABLE");
    }
    Some(tapes)
}

/// One line for each tape: what there is, or why the rest is missing.
fn tell(metrics: &Metrics, done: &Done) {
    let Done { call_sid, stream_sid, path, bytes, cut } = done;
    let path = path.display();
    metrics.recording_bytes.inc_by(*bytes);
    match cut {
        None => {
            metrics.recordings_written.inc();
            info!(call_sid, stream_sid, %path, bytes, "TAPE_WRITTEN");
        }
        Some(why) => {
            metrics.recordings_cut.inc();
            warn!(call_sid, stream_sid, %path, bytes, why, "TAPE_CUT");
        }
    }
}

/// A tape for a call that begins now, where there shall be one.
pub(super) fn recorder(
    gateway: &Gateway,
    start: &Start,
    settings: &Settings,
    conductor: Conductor,
) -> Option<Recorder> {
    let tapes = gateway.tapes.as_ref()?;
    let now = SystemTime::now();
    let ids = CallIds {
        call_sid: start.known_as().to_owned(),
        stream_sid: start.stream_sid.clone(),
        account_sid: start.account_sid.clone(),
        parameters: start.parameters.clone(),
    };
    Some(tapes.start(Header::new(ids, settings, now).conducted_by(conductor), now))
}

/// Deletes old tapes in the background.
pub(super) struct Sweeping(pub(super) Arc<Gateway>);

#[async_trait]
impl BackgroundService for Sweeping {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(tapes) = &self.0.tapes else { return };
        let Recording { keep, most_bytes, .. } = self.0.config.recording;
        let metrics = &self.0.metrics;
        let mut told = false;
        loop {
            let folder = tapes.folder().to_owned();
            let swept = move || sweep(&folder, keep, most_bytes, SystemTime::now());
            match tokio::task::spawn_blocking(swept).await.map_err(std::io::Error::other).flatten() {
                Ok(swept) => {
                    told = false;
                    metrics.recordings_deleted.inc_by(swept.deleted as u64);
                    metrics.recording_folder_bytes.set(i64::try_from(swept.bytes).unwrap_or(i64::MAX));
                    if swept.deleted > 0 {
                        info!(deleted = swept.deleted, bytes_left = swept.bytes, "TAPES_DELETED");
                    }
                }
                Err(error) if !std::mem::replace(&mut told, true) => {
                    warn!(why = %error, detail = "old tapes are not deleted", "TAPES_NOT_SWEPT");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}
