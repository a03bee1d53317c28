//! Fixed phrases: given a voice once, by the text-to-speech service, when the gateway starts. Until
//! that has worked, the apology is the recording that voxgate ships, so that it is heard with the
//! service down too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tracing::{info, warn};

use super::gateway::Gateway;
use super::serve::StartError;
use crate::audio::{APOLOGY, APOLOGY_TEXT, Hint, SAMPLE_RATE, SpeechDecoder};
use crate::call::Phrase;
use crate::config::{Config, Mode};
use crate::upstream::Services;

const RETRY: Duration = Duration::from_secs(15);

pub(super) struct Phrases {
    greeting: ArcSwap<Phrase>,
    apology: ArcSwap<Phrase>,
    filler: ArcSwap<Phrase>,
    idle_prompt: ArcSwap<Phrase>,
    goodbye: ArcSwap<Phrase>,
    transfer_apology: ArcSwap<Phrase>,
}

impl Phrases {
    pub(super) fn new(config: &Config) -> Result<Phrases, StartError> {
        let spoken_later = |text: &str| Phrase { text: text.to_owned(), audio: Bytes::new() };
        let turn = &config.turn;
        Ok(Phrases {
            greeting: ArcSwap::from_pointee(spoken_later(&turn.greeting)),
            apology: ArcSwap::from_pointee(apology(config)?),
            filler: ArcSwap::default(),
            idle_prompt: ArcSwap::from_pointee(spoken_later(&turn.idle_prompt_text)),
            goodbye: ArcSwap::from_pointee(spoken_later(&turn.idle_hangup_text)),
            transfer_apology: ArcSwap::default(),
        })
    }

    pub(super) fn greeting(&self) -> Phrase {
        Phrase::clone(&self.greeting.load())
    }

    /// Without audio until it has been rendered.
    pub(super) fn filler(&self) -> Phrase {
        Phrase::clone(&self.filler.load())
    }

    pub(super) fn idle_prompt(&self) -> Phrase {
        Phrase::clone(&self.idle_prompt.load())
    }

    pub(super) fn goodbye(&self) -> Phrase {
        Phrase::clone(&self.goodbye.load())
    }

    /// Without audio until it has been rendered.
    pub(super) fn transfer_apology(&self) -> Phrase {
        Phrase::clone(&self.transfer_apology.load())
    }

    pub(super) fn apology(&self) -> Phrase {
        Phrase::clone(&self.apology.load())
    }
}

/// The operator's recording, or ours; with neither text nor recording, silence.
pub fn apology(config: &Config) -> Result<Phrase, StartError> {
    Ok(match &config.dialogue.apology_audio {
        Some(file) => {
            let audio = read_audio(file).map_err(|why| StartError::Apology { file: file.clone(), why })?;
            Phrase { text: config.dialogue.apology.clone(), audio }
        }
        None if config.dialogue.apology.is_empty() => Phrase::default(),
        None => Phrase { text: APOLOGY_TEXT.into(), audio: Bytes::from_static(APOLOGY) },
    })
}

fn read_audio(file: &Path) -> Result<Bytes, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut decoder = SpeechDecoder::new(Hint::new(None, SAMPLE_RATE));
    let mut audio = Vec::new();
    decoder.push(&bytes, &mut audio).map_err(|why| why.to_string())?;
    decoder.finish(&mut audio).map_err(|why| why.to_string())?;
    Ok(Bytes::from(audio))
}

/// Renders the phrases in the background, and tries again until it has worked.
pub(super) async fn render(gateway: Arc<Gateway>) {
    if !matches!(gateway.config.dialogue.mode, Mode::Dialogue { .. }) {
        return;
    }
    let services = &gateway.services;
    let phrases = &gateway.phrases;
    let config = &gateway.config;
    let recorded = config.dialogue.apology_audio.is_some();
    let apology = if recorded { "" } else { &config.dialogue.apology };
    let turn = &config.turn;
    let idle_prompt = turn.idle_prompt.map_or("", |_| &turn.idle_prompt_text);
    let goodbye = turn.idle_hangup.map_or("", |_| &turn.idle_hangup_text);
    let transfer_apology = gateway.carrier.as_ref().map_or("", |_| &config.twilio.api.transfer.apology);
    let phrases = [
        ("greeting", turn.greeting.as_str(), &phrases.greeting),
        ("apology", apology, &phrases.apology),
        ("filler", config.dialogue.filler.as_str(), &phrases.filler),
        ("idle_prompt", idle_prompt, &phrases.idle_prompt),
        ("idle_hangup", goodbye, &phrases.goodbye),
        ("transfer_apology", transfer_apology, &phrases.transfer_apology),
    ];
    let wanted = phrases.into_iter().filter(|(_, text, _)| !text.is_empty());
    let mut waiting: Vec<_> = wanted
        .map(|(name, text, place)| Waiting { name, text, place, stands_in: false, told: false })
        .collect();
    loop {
        let mut left = Vec::new();
        for phrase in waiting {
            left.extend(phrase.render(services).await);
        }
        if left.is_empty() {
            return;
        }
        waiting = left;
        tokio::time::sleep(RETRY).await;
    }
}

/// A phrase that is not yet there in the first voice.
struct Waiting<'a> {
    name: &'static str,
    text: &'a str,
    place: &'a ArcSwap<Phrase>,
    /// It is there in another voice, until the first is back.
    stands_in: bool,
    /// That it could not be had was told.
    told: bool,
}

impl Waiting<'_> {
    /// Tries once; itself if it has to be tried again.
    async fn render(mut self, services: &Services) -> Option<Self> {
        let phrase = self.name;
        match services.render(self.text, !self.stands_in).await {
            Ok((audio, first_voice)) => {
                info!(phrase, ms = audio.len() / 8, first_voice, "PHRASE_RENDERED");
                self.place.store(Arc::new(Phrase { text: self.text.to_owned(), audio: Bytes::from(audio) }));
                self.stands_in = true;
                (!first_voice).then_some(self)
            }
            Err(failure) => {
                if !std::mem::replace(&mut self.told, true) {
                    warn!(phrase, why = failure.why, "PHRASE_NOT_RENDERED");
                }
                Some(self)
            }
        }
    }
}
