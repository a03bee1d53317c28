//! What all requests and calls share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::addresses::Addresses;
use super::admission::Resident;
use super::calls::Calls;
use super::door::Newcomers;
use super::farewell::Farewell;
use super::handover::Handovers;
use super::numbers::Numbers;
use super::phrases::Phrases;
use super::serve::{StartError, carrier, listeners};
use super::spelling::Spelling;
use super::tapes;
use super::tokens::Tokens;
use super::upgrade::{GOING_DOWN, Upgrade};
use crate::call::realtime::{Ears, Manner};
use crate::call::{Collecting, FinishOn, Hearing, Memory, Mode, Phrase, Settings, Silence, Trace};
use crate::config::{self, Config, Hangup, TurnDetection};
use crate::observe::{CallLabels, CallObserver, Metrics, Traces};
use crate::tape::Tapes;
use crate::turn::{Endpointing, Vad, Words};
use crate::twilio::Start;
use crate::upstream::{Bot, Carrier, Services};

pub(super) struct Gateway {
    pub(super) config: Config,
    pub(super) paths: Paths,
    pub(super) metrics: Arc<Metrics>,
    pub(super) calls: Arc<Calls>,
    /// How many calls each caller has.
    pub(super) numbers: Numbers,
    /// How many handshakes each address makes.
    pub(super) addresses: Arc<Addresses>,
    pub(super) memory: Arc<Resident>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) services: Arc<Services>,
    /// Who conducts the calls, where they are relayed.
    pub(super) bot: Option<Bot>,
    /// Who ends calls and takes them elsewhere, where it can be asked.
    pub(super) carrier: Option<Arc<Carrier>>,
    pub(super) handovers: Handovers,
    pub(super) phrases: Arc<Phrases>,
    words: Arc<Words>,
    /// `None` where calls are not recorded.
    pub(super) tapes: Option<Tapes>,
    /// `None` where calls are not traced.
    pub(super) traces: Option<Arc<Traces>>,
    /// Set when no new calls are taken any more.
    draining: Arc<AtomicBool>,
    /// Requests and tunnels under way.
    pub(super) requests: Arc<AtomicUsize>,
    /// Those of them that the app has.
    pub(super) at_app: Arc<AtomicUsize>,
    /// Connections whose first request has not come.
    pub(super) newcomers: Newcomers,
    /// Turns true when the last callers are to be told goodbye.
    goodbye: watch::Sender<bool>,
    /// Turns true when the last calls must go.
    hang_up: watch::Sender<bool>,
    request_ids: Arc<RequestIds>,
    pub(super) upgrade: Arc<Upgrade>,
}

impl Gateway {
    pub(super) fn new(
        config: Config,
        metrics: Arc<Metrics>,
        services: Arc<Services>,
        traces: Option<Arc<Traces>>,
    ) -> Result<Gateway, StartError> {
        metrics.calls_capacity.set(config.limits.max_calls as i64);
        Ok(Gateway {
            calls: Calls::new(
                config.limits.max_calls,
                metrics.calls_active.clone(),
                metrics.calls_unstarted.clone(),
            ),
            numbers: Numbers::default(),
            addresses: Arc::default(),
            memory: Arc::default(),
            bot: bot(&config)?,
            carrier: carrier(&config, &metrics)?,
            handovers: Handovers::default(),
            tokens: Arc::new(Tokens::new(&config.twilio, metrics.clone())),
            phrases: Arc::new(Phrases::new(&config)?),
            words: Arc::new(words(&config)),
            tapes: tapes::open(&config.recording, &metrics),
            traces,
            services,
            draining: Arc::default(),
            requests: Arc::default(),
            at_app: Arc::default(),
            newcomers: Newcomers::default(),
            goodbye: watch::Sender::new(false),
            hang_up: watch::Sender::new(false),
            request_ids: Arc::new(RequestIds::new()),
            upgrade: Arc::new(Upgrade::new(listeners(&config).map(|(_, address)| address).collect())),
            paths: Paths::of(&config),
            config,
            metrics,
        })
    }

    /// The same process under another configuration. What is under way is known to both.
    pub(super) fn succeeded_by(
        &self,
        config: Config,
        services: Arc<Services>,
    ) -> Result<Gateway, StartError> {
        let metrics = self.metrics.clone();
        let old = &self.config;
        let same_twilio = old.twilio == config.twilio && old.server.public_url == config.server.public_url;
        let same_phrases = same_twilio && old.dialogue == config.dialogue && old.turn == config.turn;
        Ok(Gateway {
            calls: self.calls.clone(),
            numbers: self.numbers.clone(),
            addresses: self.addresses.clone(),
            memory: self.memory.clone(),
            bot: bot(&config)?,
            carrier: match same_twilio {
                true => self.carrier.clone(),
                false => carrier(&config, &metrics)?,
            },
            handovers: self.handovers.clone(),
            tokens: match same_twilio {
                true => self.tokens.clone(),
                false => Arc::new(self.tokens.succeeded_by(&old.twilio, &config.twilio)),
            },
            phrases: match same_phrases {
                true => self.phrases.clone(),
                false => Arc::new(Phrases::new(&config)?),
            },
            words: Arc::new(words(&config)),
            tapes: self.tapes.clone(),
            traces: self.traces.clone(),
            services,
            draining: self.draining.clone(),
            requests: self.requests.clone(),
            at_app: self.at_app.clone(),
            newcomers: self.newcomers.clone(),
            goodbye: self.goodbye.clone(),
            hang_up: self.hang_up.clone(),
            request_ids: self.request_ids.clone(),
            upgrade: self.upgrade.clone(),
            paths: Paths::of(&config),
            config,
            metrics,
        })
    }

    /// From now on its configuration counts.
    pub(super) fn takes_over(&self) {
        self.calls.set_limit(self.config.limits.max_calls);
        self.metrics.calls_capacity.set(self.config.limits.max_calls as i64);
    }

    /// Who watches a call, and the trace that its requests belong to, where calls are traced.
    pub(super) fn observer(&self, start: &Start) -> (CallObserver, Option<Trace>) {
        let labels = CallLabels::of(start);
        let trace = self.traces.as_ref().map(|traces| traces.of_call(&labels.call_sid));
        let observer = CallObserver::new(self.metrics.clone(), labels, self.config.log.transcripts);
        (observer.traced(self.traces.as_deref(), trace.as_ref()), trace)
    }

    /// When a call that began then has lasted long enough.
    pub(super) fn longest(&self, started: Instant) -> Option<Instant> {
        self.config.limits.max_call.map(|longest| started + longest)
    }

    /// Whether its word counts about where a request came from.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.config.server.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.metrics.draining.set(1);
    }

    /// Has a successor take over, where this process is not about to end anyway: it would not let go of its
    /// sockets any more.
    pub(super) async fn begin_upgrade(&self) -> Result<u32, String> {
        if self.is_draining() {
            return Err(GOING_DOWN.to_owned());
        }
        self.upgrade.begin(|| self.is_draining()).await
    }

    /// This process ends with what it has.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_draining() || self.upgrade.has_handed_over()
    }

    /// Calls, requests and tapes that a stop would cut.
    pub(super) fn under_way(&self) -> usize {
        let tapes = self.tapes.as_ref().map_or(0, Tapes::open);
        self.calls.active() + self.requests.load(Ordering::SeqCst) + tapes
    }

    pub(super) fn say_goodbye(&self) {
        self.goodbye.send_replace(true);
    }

    pub(super) fn hang_up_all(&self) {
        self.hang_up.send_replace(true);
    }

    pub(super) fn hang_up(&self) -> watch::Receiver<bool> {
        self.hang_up.subscribe()
    }

    /// What a call is told of both, and of its coming back with another stream.
    pub(super) fn farewell(&self, replaced: Option<watch::Receiver<bool>>) -> Farewell {
        Farewell::new(self.goodbye.subscribe(), self.hang_up.subscribe(), replaced)
    }

    pub(super) fn request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }

    /// Whether a call is to be greeted: once, whichever process it was.
    fn greets(&self, start: &Start) -> bool {
        self.calls.greet(start.known_as()) && start.resumed() == 0
    }

    /// What a call that starts now needs to know.
    pub(super) fn call_settings(&self, start: &Start) -> Settings {
        let settings = settings_with(&self.config, self.words.clone());
        let greets =
            settings.mode == Mode::Dialogue && !self.config.turn.greeting.is_empty() && self.greets(start);
        Settings {
            greeting: greets.then(|| self.phrases.greeting()),
            apology: self.phrases.apology(),
            transfer_apology: self.phrases.transfer_apology(),
            filler: self.phrases.filler(),
            silence: Silence {
                prompt: self.phrases.idle_prompt(),
                goodbye: self.phrases.goodbye(),
                ..settings.silence
            },
            ..settings
        }
    }
}

fn bot(config: &Config) -> Result<Option<Bot>, StartError> {
    Ok(match &config.dialogue.mode {
        config::Mode::Relay { bot, subprotocol } => Some(Bot::new(bot, subprotocol.as_deref())?),
        config::Mode::Echo | config::Mode::Dialogue { .. } | config::Mode::Realtime(_) => None,
    })
}

impl Gateway {
    /// How a model conducts a call that starts now; `None` where none does.
    pub(super) fn manner(&self, start: &Start) -> Option<Manner> {
        let config::Mode::Realtime(realtime) = &self.config.dialogue.mode else { return None };
        let greeting = &self.config.turn.greeting;
        let speaks_first = realtime.speaks_first || !greeting.is_empty();
        Some(Manner {
            ears: match &realtime.turn_detection {
                TurnDetection::ServerVad { .. } | TurnDetection::SemanticVad { .. } => Ears::Models,
                TurnDetection::None { .. } => Ears::Ours,
            },
            interrupts: realtime.turn_detection.interrupts(),
            opening: (speaks_first && self.greets(start)).then(|| greeting.clone()),
        })
    }
}

/// What the configuration means to a call: all but the phrases, which need a voice.
pub fn settings(config: &Config) -> Settings {
    settings_with(config, Arc::new(words(config)))
}

fn words(config: &Config) -> Words {
    let turn = &config.turn;
    Words::new(&turn.languages, &turn.backchannels, &turn.stop_words)
}

fn settings_with(config: &Config, words: Arc<Words>) -> Settings {
    let Config { turn, playout, dialogue, limits, .. } = config;
    let (mode, hearing) = match &dialogue.mode {
        config::Mode::Echo | config::Mode::Relay { .. } | config::Mode::Realtime(_) => {
            (Mode::Echo, Hearing::Utterances)
        }
        config::Mode::Dialogue { stt, .. } if stt.is_streaming() => (Mode::Dialogue, Hearing::Stream),
        config::Mode::Dialogue { .. } => (Mode::Dialogue, Hearing::Utterances),
    };
    let vad = match turn.vad {
        config::Vad::Neural => Vad::Neural,
        config::Vad::Rms => Vad::Rms,
    };
    Settings {
        mode,
        hearing,
        vad,
        vad_rms: turn.vad_rms,
        endpointing: Endpointing { eou: turn.eou, tail: vad.tail(), max_utterance: turn.max_utterance },
        adaptive_eou: turn.adaptive_eou,
        early_agent: turn.early_agent,
        silence: Silence {
            prompt_after: turn.idle_prompt,
            hangup_after: turn.idle_hangup,
            ..Silence::default()
        },
        barge_in: turn.barge_in,
        words,
        dedup_window: turn.dedup_window,
        greeting: None,
        apology: Phrase::default(),
        transfer_apology: Phrase::default(),
        filler: Phrase::default(),
        filler_after: dialogue.filler_after,
        reply_deadline: dialogue.reply_deadline,
        digits: Collecting {
            num_digits: turn.dtmf_num_digits,
            finish_on: turn.dtmf_finish_on_key.map_or(FinishOn::Nothing, FinishOn::Key),
            timeout: turn.dtmf_timeout,
        },
        control: config.twilio.api.credentials.as_ref().map(|_| config.twilio.api.timeout),
        ask_to_hang_up: config.twilio.api.hangup == Hangup::Rest,
        memory: Memory::default(),
        lead: playout.lead,
        media_timeout: limits.media_timeout,
    }
}

/// The paths that are the gateway's own, however a request writes them.
pub(super) struct Paths {
    pub(super) media: Spelling<'static>,
    pub(super) stream_status: Spelling<'static>,
    pub(super) incoming_call: Spelling<'static>,
    pub(super) stream_ended: Spelling<'static>,
}

impl Paths {
    fn of(config: &Config) -> Paths {
        let twilio = &config.twilio;
        Paths {
            media: Spelling::kept(&twilio.path),
            stream_status: Spelling::kept(&twilio.stream_status),
            incoming_call: Spelling::kept(&twilio.incoming_call),
            stream_ended: Spelling::kept(&twilio.stream_ended),
        }
    }
}

/// Ids for requests that bring none: unique in this process, and hardly the same in another.
struct RequestIds {
    /// In hexadecimal.
    process: String,
    count: AtomicU64,
}

/// Enough for a million million requests.
const COUNT_DIGITS: u32 = 10;

impl RequestIds {
    fn new() -> RequestIds {
        use std::hash::{BuildHasher, RandomState};
        let process = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        RequestIds { process, count: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let digit = |nth: u32| b"0123456789abcdef"[(count >> (4 * nth) & 0xf) as usize];
        let mut id = Vec::with_capacity(self.process.len() + COUNT_DIGITS as usize);
        id.extend_from_slice(self.process.as_bytes());
        id.extend((0..COUNT_DIGITS).rev().map(digit));
        HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("-"))
    }
}
