//! What voices have said lately, for when it is said again: complete and loud audio, by the voice and
//! the words. What is kept has a bound in bytes; the cache itself decides what goes, and sentences that
//! were asked for once do not push out those that are said in every call.

use std::hash::RandomState;

use bytes::Bytes;
use quick_cache::sync::{self, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::tts::is_silent;

/// The longest sentence that is kept: 30 s. Nobody says that twice in the same words.
const LONGEST: usize = 30 * 8000;

/// A guess at how many sentences fit: of four seconds each.
const TYPICAL: usize = 4 * 8000;

/// Which voice, and what it says.
type Key = (usize, Box<str>);

/// `None` keeps nothing.
pub(super) struct Cache(Option<sync::Cache<Key, Bytes, InBytes, RandomState>>);

#[derive(Clone)]
struct InBytes;

impl Weighter<Key, Bytes> for InBytes {
    fn weight(&self, (_, text): &Key, audio: &Bytes) -> u64 {
        (text.len() + audio.len()) as u64
    }
}

impl Cache {
    /// That holds at most so many bytes.
    pub(super) fn new(bytes: usize) -> Cache {
        // In one piece: sentences are few, and a part of a small cache would hold none of them.
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(bytes / TYPICAL + 1).weight_capacity(bytes as u64).shards(1);
        let options = options.build().ok().filter(|_| bytes > 0);
        Cache(options.map(|options| {
            sync::Cache::with_options(options, InBytes, RandomState::new(), DefaultLifecycle::default())
        }))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn get(&self, voice: usize, text: &str) -> Option<Bytes> {
        self.0.as_ref()?.get(&(voice, text.into()))
    }

    /// Begins to keep a sentence, which is dropped unless it comes to its end.
    pub(super) fn record(&self, voice: usize, text: &str) -> Recording<'_> {
        let cache = self.0.as_ref().filter(|_| text.chars().any(char::is_alphanumeric));
        Recording { cache, key: (voice, text.into()), audio: Vec::new() }
    }
}

/// A sentence that is being said.
pub(super) struct Recording<'c> {
    cache: Option<&'c sync::Cache<Key, Bytes, InBytes, RandomState>>,
    key: Key,
    audio: Vec<u8>,
}

impl Recording<'_> {
    pub(super) fn push(&mut self, mulaw: &[u8]) {
        if self.audio.len() + mulaw.len() > LONGEST {
            self.cache = None;
            self.audio = Vec::new();
        }
        if self.cache.is_some() {
            self.audio.extend_from_slice(mulaw);
        }
    }

    /// It is complete.
    pub(super) fn keep(self) {
        if let Some(cache) = self.cache
            && !is_silent(&self.audio)
        {
            cache.insert(self.key, Bytes::from(self.audio.into_boxed_slice()));
        }
    }
}
