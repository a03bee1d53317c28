//! Text-to-speech, a sentence at a time: it is posted as JSON, by webhook or as a vendor wants it, and
//! the audio that comes back, whatever its format, is handed on as μ-law while it is still arriving.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;

use super::answer::Answer;
use super::http::Wire;
use super::observed::Watch;
use super::{CallIds, Pools, Unusable, deepgram, elevenlabs, openai};
use crate::audio::{FRAME_BYTES, Hint, Kind as SoundKind, NotSpeech, SpeechDecoder, level};
use crate::call::{Failure, SILENT_RMS};
use crate::config::{self, RawAudio};

/// Bytes that are decoded at a time.
const PIECE: usize = 1024;

/// Ten minutes of μ-law: nobody says more in one sentence.
const LONGEST_SPEECH: usize = 10 * 60 * 8000;

/// Ten minutes of what a studio would record (48 kHz, 16 bits, stereo): ends an answer of which
/// nothing becomes sound.
const LONGEST_BODY: usize = 10 * 60 * 48_000 * 4;

/// The most μ-law that a phrase rendered in advance may have: more than four minutes.
const LONGEST_PHRASE: usize = 2 * 1024 * 1024;

pub(super) struct Tts {
    wire: Wire,
    kind: Kind,
}

/// How a sentence is put, and what its audio is taken for.
enum Kind {
    Webhook { voice: Option<String>, raw: RawAudio },
    OpenAi(openai::Speech),
    ElevenLabs(elevenlabs::Speech),
    Deepgram,
}

/// As posted.
#[derive(Serialize)]
struct Sentence<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice: Option<&'a str>,
    /// Absent for what is rendered before any call.
    #[serde(skip_serializing_if = "Option::is_none")]
    call_sid: Option<&'a str>,
}

impl Tts {
    pub(super) fn new(config: &config::Tts, pools: &mut Pools) -> Result<Self, Unusable> {
        Ok(match config {
            config::Tts::Webhook { endpoint, voice, raw } => {
                let kind = Kind::Webhook { voice: voice.clone(), raw: *raw };
                Self { wire: pools.wire(endpoint)?, kind }
            }
            config::Tts::OpenAi(config) => {
                let (wire, speech) = openai::speech(config, pools)?;
                Self { wire, kind: Kind::OpenAi(speech) }
            }
            config::Tts::ElevenLabs(config) => {
                let (wire, speech) = elevenlabs::speech(config, pools)?;
                Self { wire, kind: Kind::ElevenLabs(speech) }
            }
            config::Tts::Deepgram(config) => {
                Self { wire: deepgram::speech(config, pools)?, kind: Kind::Deepgram }
            }
        })
    }

    pub(super) fn upstream(&self) -> &str {
        self.wire.upstream()
    }

    /// Has a phrase spoken in advance, outside any call; and what it came as.
    pub(super) async fn render(
        &self,
        text: &str,
        watch: &mut Watch,
    ) -> Result<(Vec<u8>, Option<SoundKind>), Failure> {
        let mut phrase = Vec::new();
        let mut speech = self.say(None, text, watch).await?;
        while let Some(mulaw) = speech.next().await? {
            if phrase.len() + mulaw.len() > LONGEST_PHRASE {
                return Err(speech.too_long(LONGEST_PHRASE));
            }
            phrase.extend_from_slice(&mulaw);
        }
        // As a call judges it; an apology that is silence would be worse than the one shipped.
        if is_silent(&phrase) { Err(speech.silent()) } else { Ok((phrase, speech.decoder.kind())) }
    }

    /// Has a sentence spoken; its audio is in [`Speech::next`].
    pub(super) async fn say(
        &self,
        ids: Option<&CallIds>,
        text: &str,
        watch: &mut Watch,
    ) -> Result<Speech, Failure> {
        let body = match &self.kind {
            Kind::Webhook { voice, .. } => {
                let call_sid = ids.map(|ids| &*ids.call_sid);
                // Strings always serialise.
                serde_json::to_vec(&Sentence { text, voice: voice.as_deref(), call_sid }).unwrap_or_default()
            }
            Kind::OpenAi(speech) => speech.body(text),
            Kind::ElevenLabs(speech) => speech.body(text),
            Kind::Deepgram => deepgram::body(text),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("audio/*"));
        let answer = self.wire.post(headers, Bytes::from(body), watch).await?;
        let content_type = answer.content_type();
        let hint = match &self.kind {
            Kind::Webhook { raw, .. } => {
                Hint::new(Some(&*content_type).filter(|t| !t.is_empty()), raw.pcm_rate)
            }
            Kind::OpenAi(speech) => asked_for(&content_type, speech.format()),
            Kind::ElevenLabs(speech) => asked_for(&content_type, &speech.format()),
            Kind::Deepgram => asked_for(&content_type, deepgram::FORMAT),
        };
        let decoder = SpeechDecoder::new(hint);
        let has_words = text.chars().any(char::is_alphanumeric);
        Ok(Speech { complete: answer.has_no_content(), answer, decoder, spoken: 0, has_words })
    }
}

/// There is nothing to hear in this μ-law, as a call judges it.
pub(super) fn is_silent(mulaw: &[u8]) -> bool {
    mulaw.chunks(FRAME_BYTES).all(|frame| !level::is_above(frame, SILENT_RMS))
}

/// What headerless audio is: what was asked for, since vendors announce it as anything, MP3 included.
/// Only a type with a rate in it has been thought about.
fn asked_for(content_type: &str, format: &str) -> Hint {
    let announced = content_type.to_ascii_lowercase();
    let is_sure = announced.starts_with("audio/") && announced.contains("rate=");
    let hint = Hint::new(Some(if is_sure { content_type } else { format }), RawAudio::default().pcm_rate);
    hint.despite(content_type)
}

/// A sentence as it is spoken.
pub(super) struct Speech {
    answer: Answer,
    decoder: SpeechDecoder,
    /// Bytes of μ-law so far.
    spoken: usize,
    complete: bool,
    /// There is something to say: no audio at all is then a failure. Agents do send a lone "…".
    has_words: bool,
}

impl Speech {
    /// The next μ-law, never none; `None` once the sentence is complete.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        while !self.complete {
            let mut mulaw = Vec::new();
            let decoded = match self.answer.next().await? {
                Some(bytes) => self.decode(&bytes, &mut mulaw),
                None => {
                    self.complete = true;
                    if self.answer.received() == 0 { Ok(()) } else { self.decoder.finish(&mut mulaw) }
                }
            };
            decoded.map_err(|not_speech| self.not_speech(&not_speech))?;
            self.spoken += mulaw.len();
            if self.spoken > LONGEST_SPEECH || self.answer.received() > LONGEST_BODY {
                return Err(self.answer.wrong("more than ten minutes of audio"));
            }
            if !mulaw.is_empty() {
                return Ok(Some(mulaw));
            }
        }
        if self.spoken == 0 && self.has_words {
            return Err(self.answer.wrong("no audio"));
        }
        Ok(None)
    }

    /// In small pieces, since silence compresses without limit: what is too long is noticed before it
    /// fills the memory.
    fn decode(&mut self, bytes: &[u8], mulaw: &mut Vec<u8>) -> Result<(), NotSpeech> {
        for piece in bytes.chunks(PIECE) {
            self.decoder.push(piece, mulaw)?;
            if self.spoken + mulaw.len() > LONGEST_SPEECH {
                break;
            }
        }
        Ok(())
    }

    fn not_speech(&self, came: &NotSpeech) -> Failure {
        match came.said() {
            Some(said) => self.answer.wrong(format!("{came}: {}", self.answer.quote(said))),
            None => self.answer.wrong(came.to_string()),
        }
    }

    /// The failure of an answer in which there is nothing to hear.
    pub(super) fn silent(&self) -> Failure {
        self.answer.wrong("nothing but silence")
    }

    /// The failure of an answer that is more than the caller of this can take.
    pub(super) fn too_long(&self, most: usize) -> Failure {
        self.answer.wrong(format!("more than {} s of audio", most / 8000))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::fake::{Fake, failed, heard, hum};
    use super::super::tests::ids;
    use super::LONGEST_SPEECH;
    use crate::call::{FailureKind, Input};

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\nConnection: close\r\n\r\n";

    /// The audio of these inputs, none of them empty, and how they end.
    fn audio(inputs: &[Input<'static>]) -> (Vec<u8>, Result<(), String>) {
        let mut audio = Vec::new();
        let (last, before) = inputs.split_last().expect("an end");
        for input in before {
            let Input::Speech { segment: 3, audio: piece } = input else { panic!("{input:?}") };
            assert!(!piece.is_empty(), "an empty piece");
            audio.extend_from_slice(piece);
        }
        match last {
            Input::SpeechEnd { segment: 3 } => (audio, Ok(())),
            _ => (audio, Err(failed(inputs).why)),
        }
    }

    async fn say(mut fake: Fake, text: &str) -> Vec<Input<'static>> {
        let services = fake.services();
        heard(|to| services.for_call(ids(), to).say(3, text.to_owned())).await
    }

    #[tokio::test]
    async fn a_sentence_is_posted_and_heard() {
        let mut fake = Fake::answering(
            [HEAD.replace("Connection: close", "Content-Length: 4000").into_bytes(), hum(4000)].concat(),
        )
        .await;
        let services = fake.services();
        let inputs = heard(|to| services.for_call(ids(), to).say(3, "Grüße.".to_owned())).await;
        assert_eq!(audio(&inputs), (hum(4000), Ok(())));
        let request = fake.request().await;
        assert!(request.head.starts_with("post /tts http/1.1\r\n"), "{}", request.head);
        assert!(request.head.contains("\r\ncontent-type: application/json\r\n"));
        let expected = json!({"text": "Grüße.", "voice": "anna", "call_sid": "CA1"});
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
    }

    #[tokio::test]
    async fn audio_may_come_a_byte_at_a_time() {
        let fake = Fake::serving(|_, mut peer| async move {
            peer.request().await;
            peer.send(HEAD).await;
            peer.dribble(&hum(4001)).await;
        })
        .await;
        assert_eq!(audio(&say(fake, "Hello.").await), (hum(4001), Ok(())));
    }

    #[tokio::test]
    async fn what_came_before_a_break_is_heard() {
        // Until the first audio was heard, the connection stays: a reset overtakes what was sent.
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let gone = std::sync::Mutex::new(Some(gone));
        let mut fake = Fake::serving(move |_, mut peer| {
            let gone = gone.lock().unwrap().take().unwrap();
            async move {
                peer.request().await;
                peer.send(HEAD).await;
                peer.send(hum(8000)).await;
                gone.await.unwrap();
                peer.reset();
            }
        })
        .await;
        let (to, mut from) = tokio::sync::mpsc::channel(1);
        let job = tokio::spawn(fake.services().for_call(ids(), to).say(3, "Hello.".to_owned()));
        let mut inputs = vec![*from.recv().await.unwrap()];
        go.send(()).unwrap();
        while let Some(input) = from.recv().await {
            inputs.push(*input);
        }
        job.await.unwrap();
        let (heard, end) = audio(&inputs);
        assert!(!heard.is_empty() && hum(8000).starts_with(&heard));
        let why = end.unwrap_err();
        assert!(why.contains("/tts answered 200 with ") && why.contains(" bytes and broke off: "), "{why}");
    }

    #[tokio::test]
    async fn what_is_no_sound_is_never_heard() {
        for body in ["{\"error\":\"no credit\"}", "<h1>Oops</h1>"] {
            let length = body.len();
            for kind in ["audio/mpeg", "application/json"] {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let inputs = say(Fake::answering(answer).await, "Hello.").await;
                let (heard, end) = audio(&inputs);
                assert_eq!((heard, failed(&inputs).kind), (Vec::new(), FailureKind::Protocol));
                assert!(end.unwrap_err().contains("/tts answered 200 with "));
            }
        }
    }

    #[tokio::test]
    async fn no_audio_is_a_failure_if_there_was_something_to_say() {
        for answer in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 0\r\n\r\n",
        ] {
            let inputs = say(Fake::answering(answer).await, "Hello.").await;
            assert!(failed(&inputs).why.ends_with("with no audio"), "{}", failed(&inputs).why);
            assert_eq!(audio(&say(Fake::answering(answer).await, " … ").await), (Vec::new(), Ok(())));
        }
    }

    /// A service that speaks for ever.
    async fn endless() -> Fake {
        let hum = Arc::new(hum(100_000));
        Fake::serving(move |_, mut peer| {
            let hum = Arc::clone(&hum);
            async move {
                peer.request().await;
                peer.send(HEAD).await;
                while peer.try_send(&hum).await {}
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_sentence_has_a_bound() {
        let (heard, end) = audio(&say(endless().await, "Hello.").await);
        assert!(heard.len() <= LONGEST_SPEECH);
        assert!(end.unwrap_err().ends_with("more than ten minutes of audio"));
    }

    #[tokio::test]
    async fn a_phrase_is_rendered_outside_any_call() {
        let answer =
            [HEAD.replace("Connection: close", "Content-Length: 4000").into_bytes(), hum(4000)].concat();
        let mut fake = Fake::answering(answer).await;
        assert_eq!(fake.services().render("Sorry.", true).await.unwrap(), (hum(4000), true));
        let expected = json!({"text": "Sorry.", "voice": "anna"});
        assert_eq!(serde_json::from_slice::<Value>(&fake.request().await.body).unwrap(), expected);
        assert_eq!(fake.observation().await.result, "ok");
    }

    #[tokio::test]
    async fn a_phrase_of_nothing_but_silence_is_refused() {
        let head = HEAD.replace("Connection: close", "Content-Length: 4000");
        let mut fake = Fake::answering([head.into_bytes(), vec![0xff; 4000]].concat()).await;
        let failure = fake.services().render("Sorry.", true).await.unwrap_err();
        assert!(failure.why.ends_with("answered 200 with nothing but silence"), "{}", failure.why);
        assert_eq!(fake.observation().await.result, "protocol");
    }

    #[tokio::test]
    async fn a_phrase_has_a_bound() {
        let mut fake = endless().await;
        let failure = fake.services().render("Sorry.", true).await.unwrap_err();
        assert!(failure.why.ends_with("more than 262 s of audio"), "{}", failure.why);
        assert_eq!(fake.observation().await.result, "protocol");
    }
}
