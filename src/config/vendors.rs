//! The kinds of services that are a vendor's API: their keys by the vendor's own names, and what is
//! plainly meant for another vendor.

use std::time::Duration;

use super::document::Refused;
use super::meant::*;
use super::services::{Place, endpoint};
use super::written::Table;

/// A vendor as its `kind` knows it.
pub(super) struct Vendor {
    kind: &'static str,
    name: &'static str,
    home: &'static str,
    /// Where the key of the account goes.
    header: &'static str,
    /// The variable by which the vendor's own clients know that key.
    variable: &'static str,
}

const OPENAI: Vendor = Vendor {
    kind: "openai",
    name: "OpenAI",
    home: "https://api.openai.com/v1",
    header: "authorization",
    variable: "OPENAI_API_KEY",
};

/// OpenAI's Realtime API, which has an address of its own.
pub(super) const OPENAI_REALTIME: Vendor = Vendor { home: "https://api.openai.com/v1/realtime", ..OPENAI };

const ELEVENLABS: Vendor = Vendor {
    kind: "elevenlabs",
    name: "ElevenLabs",
    home: "https://api.elevenlabs.io/v1",
    header: "xi-api-key",
    variable: "ELEVENLABS_API_KEY",
};

const DEEPGRAM: Vendor = Vendor {
    kind: "deepgram",
    name: "Deepgram",
    home: "https://api.deepgram.com/v1",
    header: "authorization",
    variable: "DEEPGRAM_API_KEY",
};

const OPENAI_VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
    "verse",
];

pub(super) fn openai_stt(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Stt> {
    let account = Account::read(t, place, &OPENAI);
    let model = account.name(t, "model", "a model such as \"gpt-transcribe\"", Some("gpt-transcribe"));
    let language = language(t, "language");
    let prompt = t.text("prompt");
    let temperature = t.number("temperature", 0.0..=1.0);
    let (endpoint, api_key) = (account.endpoint?, account.api_key);
    Some(Stt::OpenAi(OpenAiStt { endpoint, api_key, model: model?, language, prompt, temperature }))
}

pub(super) fn openai_agent(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Agent> {
    let account = Account::read(t, place, &OPENAI);
    let model = account.name(t, "model", "a model such as \"gpt-4.1-mini\"", Some("gpt-4.1-mini"));
    let instructions = t.text("instructions").filter(|text| !text.trim().is_empty());
    let temperature = t.number("temperature", 0.0..=2.0);
    let efforts = ["none", "minimal", "low", "medium", "high"].map(|word| (word, word));
    let reasoning_effort = t.choice("reasoning_effort", &efforts, &[]).map(str::to_owned);
    let max_tokens = t.count("max_tokens", 1..=1_000_000);
    let max_completion_tokens = t.count("max_completion_tokens", 1..=1_000_000);
    if t.has("max_tokens") && t.has("max_completion_tokens") {
        let label = t.label();
        t.complain(
            "max_tokens",
            format!("{label} has both `max_tokens` and `max_completion_tokens`, two names of one limit"),
            "keep the one that the model takes: the second is the newer".to_owned(),
        );
    }
    let history_turns = t.count("history_turns", 0..=1000).unwrap_or(20);
    let tools = tools(t, &Tool::ALL);
    Some(Agent::OpenAi(OpenAiAgent {
        endpoint: account.endpoint?,
        api_key: account.api_key,
        model: model?,
        instructions,
        temperature,
        reasoning_effort,
        max_tokens,
        max_completion_tokens,
        history_turns,
        tools,
    }))
}

/// The functions of our own that a model may call, of those that can be done.
pub(super) fn tools(t: &mut Table<'_, '_>, all: &[Tool]) -> Vec<Tool> {
    let known = all.iter().map(|tool| format!("\"{}\"", tool.name())).collect::<Vec<_>>().join(", ");
    let tools = t.list("tools", &known, |name| {
        let tool = all.iter().copied().find(|tool| tool.name() == name);
        tool.ok_or_else(|| Refused::from("is not one of the functions"))
    });
    tools.unwrap_or_else(|| all.to_vec())
}

pub(super) fn openai_tts(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Tts> {
    let account = Account::read(t, place, &OPENAI);
    let model = account.name(t, "model", "a model such as \"gpt-4o-mini-tts\"", Some("gpt-4o-mini-tts"));
    let voice = account.name(t, "voice", "a voice such as \"alloy\"", Some("alloy"));
    let instructions = t.text("instructions");
    let speed = t.number("speed", 0.25..=4.0);
    let formats = [
        ("pcm", SpeechFormat::Pcm),
        ("wav", SpeechFormat::Wav),
        ("mp3", SpeechFormat::Mp3),
        ("flac", SpeechFormat::Flac),
    ];
    let response_format = t.choice("response_format", &formats, &["opus", "aac"]);
    Some(Tts::OpenAi(OpenAiTts {
        endpoint: account.endpoint?,
        api_key: account.api_key,
        model: model?,
        voice: voice?,
        instructions,
        speed,
        response_format: response_format.unwrap_or(SpeechFormat::Pcm),
    }))
}

pub(super) fn elevenlabs(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Tts> {
    let account = Account::read(t, place, &ELEVENLABS);
    let wanted = "the ID of a voice, such as \"JBFqnCBsd6RMkjVDRZzb\"";
    let voice_id = account.name(t, "voice_id", wanted, Some("JBFqnCBsd6RMkjVDRZzb"));
    // It becomes a part of the path.
    if voice_id
        .as_ref()
        .is_some_and(|id| !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)))
    {
        let why = format!("`voice_id` in {} is no ID of a voice: these are letters and digits", t.label());
        t.complain("voice_id", why, format!("write {wanted}"));
    }
    let wanted = "a model such as \"eleven_flash_v2_5\"";
    let model_id = account.name(t, "model_id", wanted, Some("eleven_flash_v2_5"));
    let mp3 = |rate, kbps| ElevenLabsFormat::Mp3 { rate, kbps };
    let formats = [
        ("ulaw_8000", ElevenLabsFormat::Ulaw8000),
        ("pcm_8000", ElevenLabsFormat::Pcm(8000)),
        ("pcm_16000", ElevenLabsFormat::Pcm(16_000)),
        ("pcm_22050", ElevenLabsFormat::Pcm(22_050)),
        ("pcm_24000", ElevenLabsFormat::Pcm(24_000)),
        ("pcm_44100", ElevenLabsFormat::Pcm(44_100)),
        ("mp3_22050_32", mp3(22_050, 32)),
        ("mp3_44100_32", mp3(44_100, 32)),
        ("mp3_44100_64", mp3(44_100, 64)),
        ("mp3_44100_96", mp3(44_100, 96)),
        ("mp3_44100_128", mp3(44_100, 128)),
    ];
    let output_format = t.choice("output_format", &formats, &[]);
    let language_code = language(t, "language_code");
    let voice_settings = t.section("voice_settings", |t| VoiceSettings {
        stability: t.number("stability", 0.0..=1.0),
        similarity_boost: t.number("similarity_boost", 0.0..=1.0),
        style: t.number("style", 0.0..=1.0),
        speed: t.number("speed", 0.7..=1.2),
        use_speaker_boost: t.flag("use_speaker_boost"),
    });
    let optimize_streaming_latency = t.whole("optimize_streaming_latency", 0..=4);
    let enable_logging = t.flag("enable_logging");
    Some(Tts::ElevenLabs(ElevenLabsTts {
        endpoint: account.endpoint?,
        api_key: account.api_key,
        voice_id: voice_id?,
        model_id: model_id?,
        output_format: output_format.unwrap_or(ElevenLabsFormat::Ulaw8000),
        language_code,
        voice_settings,
        optimize_streaming_latency,
        enable_logging,
    }))
}

pub(super) fn deepgram(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Tts> {
    let account = Account::read(t, place, &DEEPGRAM);
    let model = account.name(t, "model", "a model such as \"aura-2-thalia-en\"", Some("aura-2-thalia-en"));
    let speed = t.number("speed", 0.7..=1.5);
    let mip_opt_out = t.flag("mip_opt_out");
    let (endpoint, api_key) = (account.endpoint?, account.api_key);
    Some(Tts::Deepgram(DeepgramTts { endpoint, api_key, model: model?, speed, mip_opt_out }))
}

/// Where a vendor's API is, and as whom it is asked.
pub(super) struct Account {
    vendor: &'static Vendor,
    service: &'static str,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) api_key: Option<Secret>,
    /// It is not the vendor who answers, but somebody who speaks the same API.
    pub(super) elsewhere: bool,
}

impl Account {
    pub(super) fn read(t: &mut Table<'_, '_>, place: &Place<'_>, vendor: &'static Vendor) -> Account {
        let endpoint = endpoint(t, &Place { home: Some(vendor.home), ..*place });
        let wanted = format!("a key such as \"env:{}\"", vendor.variable);
        let api_key = t.secret_as("api_key", &wanted, |text| match text {
            "" => Err(Refused::from("is empty")),
            text if text.starts_with("sk-") && vendor.kind != OPENAI.kind => {
                Err(Refused::from("begins as a key of OpenAI does"))
            }
            text if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Secret(text.to_owned())),
            _ => Err(Refused::from("has a space, or what is no key's: was it pasted with more than itself?")),
        });
        let is_at = |vendor: &Vendor, e: &Endpoint| {
            let host = vendor.home.trim_start_matches("https://").split('/').next().unwrap_or_default();
            let is_host = |server: &String| server.rsplit_once(':').is_some_and(|(name, _)| name == host);
            e.upstream.servers.iter().any(is_host)
        };
        let is_vendor = |e: &Endpoint| is_at(vendor, e);
        let others = [&OPENAI, &ELEVENLABS, &DEEPGRAM].into_iter().filter(|other| other.kind != vendor.kind);
        for other in others.filter(|other| endpoint.as_ref().is_some_and(|e| is_at(other, e))) {
            let why =
                format!("{} is kind = {:?}, and who answers there is {}", t.label(), vendor.kind, other.name);
            t.complain("url", why, format!("write kind = {:?}, or the `url` of {}", other.kind, vendor.name));
        }
        let has_key =
            |e: &Endpoint| e.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(vendor.header));
        let elsewhere = endpoint.as_ref().is_some_and(|e| !is_vendor(e));
        let lacks_key = |e: &Endpoint| is_vendor(e) && !has_key(e);
        if place.needed && !t.has("api_key") && endpoint.as_ref().is_some_and(lacks_key) {
            let why = format!("{} has no `api_key`, and {} answers nobody without", t.label(), vendor.name);
            t.complain("kind", why, format!("add api_key = \"env:{}\"", vendor.variable));
        }
        Account { vendor, service: place.service, endpoint, api_key, elsewhere }
    }

    /// The name of a model or a voice. The vendor's own names are taken for granted only there.
    pub(super) fn name(
        &self,
        t: &mut Table<'_, '_>,
        key: &'static str,
        wanted: &str,
        default: Option<&str>,
    ) -> Option<String> {
        let Vendor { kind, name, .. } = self.vendor;
        // Who speaks OpenAI's API may well pass requests on to another vendor, by that one's names.
        let may_be_anyones = *kind == "openai" && self.elsewhere;
        let given = t.parsed(key, wanted, |text| match named(text) {
            _ if text.trim().is_empty() => Err(Refused::from("is empty")),
            _ if may_be_anyones => Ok(text.to_owned()),
            Some(Named { whose, thing, .. }) if whose.kind != *kind => Err(Refused::because(
                &format!("is a {thing} of {}, and this is {name}", whose.name),
                format!("write {wanted}, or kind = {:?}", whose.kind),
            )),
            // A model that both hears and speaks is no model to name here either.
            Some(Named { thing: "model", service, .. }) if service != self.service => Err(Refused::because(
                &format!("is a model {}, and here one is wanted {}", does(service), does(self.service)),
                format!("write {wanted}"),
            )),
            Some(Named { thing: "voice", .. }) if key.starts_with("model") => {
                Err(Refused::because("is a voice, and no model", format!("write {wanted}")))
            }
            Some(_) | None => Ok(text.to_owned()),
        });
        if t.has(key) {
            return given;
        }
        if may_be_anyones {
            let why = format!("{} has no `{key}`, and who answers there is not {name}", t.label());
            t.complain("url", why, format!("add the `{key}` by the name that it has there"));
        }
        default.map(str::to_owned)
    }
}

/// `GET /v1/listen`: hears the whole call.
pub(super) fn deepgram_stt(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Stt> {
    let account = Account::read(t, &Place { websocket: true, ..*place }, &DEEPGRAM);
    let model = account.name(t, "model", "a model such as \"nova-3\"", Some("nova-3"));
    let begins = |with: &str| model.as_ref().is_some_and(|model| model.starts_with(with));
    if begins("flux-") {
        let why = format!("`model` in {} wants /v2/listen, which is not in this version yet", t.label());
        t.complain("model", why, "write a model such as \"nova-3\"".to_owned());
    }
    let language = language(t, "language").or(Some("en".to_owned()));
    let ms = |d: Option<Duration>, default| d.unwrap_or(Duration::from_millis(default));
    let some = |d: Duration| (!d.is_zero()).then_some(d);
    let endpointing = some(ms(t.millis("endpointing", 0..=5000), 300));
    let utterance_end = some(ms(t.millis("utterance_end_ms", 0..=5000), 1000));
    if utterance_end.is_some_and(|gap| gap < Duration::from_secs(1)) {
        let why = format!("`utterance_end_ms` in {} is less than Deepgram can do", t.label());
        t.complain("utterance_end_ms", why, "write 1000 to 5000, or 0 for never".to_owned());
    }
    let smart_format = t.flag("smart_format").unwrap_or(false);
    let punctuate = t.flag("punctuate").unwrap_or(true);
    let keyterm = t.list("keyterm", "\"a word or a few\"", |term| match term.trim() {
        "" => Err(Refused::from("is empty")),
        term => Ok(term.to_owned()),
    });
    let keyterm = keyterm.unwrap_or_default();
    if !keyterm.is_empty() && !begins("nova-3") {
        let why = format!("`keyterm` in {} is for nova-3, and `model` is another", t.label());
        t.complain("keyterm", why, "leave it out, or write model = \"nova-3\"".to_owned());
    }
    Some(Stt::Deepgram(DeepgramStt {
        endpoint: account.endpoint?,
        api_key: account.api_key,
        model: model?,
        language,
        endpointing,
        utterance_end,
        smart_format,
        punctuate,
        keyterm,
    }))
}

/// A Vosk server: it has one model, and no keys.
pub(super) fn vosk(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Stt> {
    let endpoint = endpoint(t, &Place { websocket: true, ..*place });
    let phrase_list = t.list("phrase_list", "\"what may be said\"", |phrase| Ok(phrase.to_owned()));
    Some(Stt::Vosk(VoskStt { endpoint: endpoint?, phrase_list: phrase_list.unwrap_or_default() }))
}

/// What a name plainly is the name of.
struct Named {
    whose: &'static Vendor,
    thing: &'static str,
    /// The service that it is for, as [dialogue] has it.
    service: &'static str,
}

/// `None` for a name that may be anybody's.
fn named(name: &str) -> Option<Named> {
    let begins = |with: &[&str]| with.iter().any(|with| name.starts_with(with));
    let has = |of: fn(&u8) -> bool| name.bytes().any(|b| of(&b));
    let is_elevenlabs_id = name.len() == 20
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase);
    let is = |whose, thing, service| Some(Named { whose, thing, service });
    match () {
        () if OPENAI_VOICES.contains(&name) => is(&OPENAI, "voice", "tts"),
        () if begins(&["tts-1"]) || begins(&["gpt-"]) && name.contains("-tts") => is(&OPENAI, "model", "tts"),
        () if begins(&["whisper-1", "gpt-transcribe"])
            || begins(&["gpt-"]) && name.contains("-transcribe") =>
        {
            is(&OPENAI, "model", "stt")
        }
        () if begins(&["gpt-"]) && name.contains("-realtime") || begins(&["gpt-realtime"]) => {
            is(&OPENAI, "model", "realtime")
        }
        () if begins(&["gpt-"]) => is(&OPENAI, "model", "agent"),
        () if is_elevenlabs_id => is(&ELEVENLABS, "voice", "tts"),
        () if begins(&["eleven_"]) => is(&ELEVENLABS, "model", "tts"),
        () if begins(&["scribe_"]) => is(&ELEVENLABS, "model", "stt"),
        () if begins(&["aura-"]) => is(&DEEPGRAM, "model", "tts"),
        () if begins(&["nova-", "flux-"]) => is(&DEEPGRAM, "model", "stt"),
        () => None,
    }
}

/// What a service does, for a name that is in the wrong one.
fn does(service: &str) -> &'static str {
    match service {
        "stt" => "that hears",
        "tts" => "that speaks",
        "realtime" => "that hears and speaks by itself",
        _ => "that answers",
    }
}

pub(super) fn language(t: &mut Table<'_, '_>, key: &'static str) -> Option<String> {
    t.parsed(key, "a language such as \"en\"", |text| {
        let sound =
            (2..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if sound { Ok(text.to_owned()) } else { Err(Refused::from("is not the code of a language")) }
    })
}

#[cfg(test)]
mod tests;
