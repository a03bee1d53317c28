//! Tests: what each vendor's table means, and what is plainly another vendor's.

use std::time::Duration;

use super::super::resolve::tests::check;
use super::*;

const KEYS: [(&str, &str); 3] =
    [("OPENAI_API_KEY", "sk-1"), ("ELEVENLABS_API_KEY", "el-1"), ("DEEPGRAM_API_KEY", "dg-1")];

/// A dialogue whose text-to-speech has these keys, and its recogniser those.
fn dialogue(stt: &str, tts: &str) -> Result<(Stt, Tts), String> {
    let text = format!(
        "[dialogue]\nmode = \"dialogue\"\nagent.url = \"http://a/\"\n\
         [dialogue.stt]\n{stt}\n[dialogue.tts]\n{tts}\n\
         [upstreams.voices]\nservers = [\"voices:8880\"]"
    );
    match check(&text, &KEYS)?.dialogue.mode {
        Mode::Dialogue { stt, tts, .. } => Ok((stt, tts)),
        Mode::Echo | Mode::Relay { .. } => panic!("echo"),
    }
}

const STT: &str = "url = \"http://a/\"";

fn tts(keys: &str) -> Result<Tts, String> {
    dialogue(STT, keys).map(|(_, tts)| tts)
}

/// What is wrong with these keys, the first of them on line 1.
fn problem(keys: &str) -> String {
    let said = tts(keys).expect_err(keys);
    said.strip_prefix("gateway.toml:").unwrap_or(&said).to_owned()
}

#[test]
fn a_vendor_needs_no_more_than_a_key() {
    let (stt, _) = dialogue("kind = \"openai\"\napi_key = \"env:OPENAI_API_KEY\"", STT).unwrap();
    let Stt::OpenAi(stt) = stt else { panic!("{stt:?}") };
    assert_eq!(stt.endpoint.url_of("api.openai.com:443"), "https://api.openai.com:443/v1");
    assert_eq!(stt.endpoint.upstream.servers, ["api.openai.com:443"]);
    assert_eq!(stt.endpoint.upstream.idle_timeout, Duration::from_secs(50));
    assert_eq!((stt.api_key, &*stt.model), (Some(Secret("sk-1".to_owned())), "gpt-transcribe"));
    assert_eq!((stt.language, stt.prompt, stt.temperature), (None, None, None));

    let Tts::OpenAi(tts_) = tts("kind = \"openai\"\napi_key = \"env:OPENAI_API_KEY\"").unwrap() else {
        panic!()
    };
    assert_eq!((&*tts_.model, &*tts_.voice), ("gpt-4o-mini-tts", "alloy"));
    assert_eq!(tts_.response_format, SpeechFormat::Pcm);

    let spoken = tts("kind = \"elevenlabs\"\napi_key = \"env:ELEVENLABS_API_KEY\"").unwrap();
    let Tts::ElevenLabs(spoken) = spoken else { panic!("{spoken:?}") };
    assert_eq!(spoken.endpoint.upstream.servers, ["api.elevenlabs.io:443"]);
    assert_eq!((&*spoken.voice_id, &*spoken.model_id), ("JBFqnCBsd6RMkjVDRZzb", "eleven_flash_v2_5"));
    assert_eq!(spoken.output_format, ElevenLabsFormat::Ulaw8000);
    assert_eq!(spoken.voice_settings, VoiceSettings::default());

    let spoken = tts("kind = \"deepgram\"\napi_key = \"env:DEEPGRAM_API_KEY\"").unwrap();
    let Tts::Deepgram(spoken) = spoken else { panic!("{spoken:?}") };
    assert_eq!(spoken.endpoint.upstream.servers, ["api.deepgram.com:443"]);
    assert_eq!((&*spoken.model, spoken.speed), ("aura-2-thalia-en", None));
}

#[test]
fn who_speaks_a_vendors_api_needs_no_key_but_names_of_its_own() {
    let spoken =
        tts("kind = \"openai\"\nupstream = \"voices\"\nmodel = \"kokoro\"\nvoice = \"af_heart\"").unwrap();
    let Tts::OpenAi(spoken) = spoken else { panic!("{spoken:?}") };
    assert_eq!(spoken.endpoint.url_of("voices:8880"), "http://voices:8880/");
    assert_eq!((spoken.api_key, &*spoken.model, &*spoken.voice), (None, "kokoro", "af_heart"));
    let said = problem("kind = \"openai\"\nurl = \"http://voices:8880/v1\"\nmodel = \"kokoro\"");
    assert_eq!(
        said,
        "8:7: [dialogue.tts] has no `voice`, and who answers there is not OpenAI; \
         add the `voice` by the name that it has there"
    );
    // It may well pass on to another vendor.
    assert!(
        tts(
            "kind = \"openai\"\nurl = \"http://l/\"\nmodel = \"eleven_v3\"\nvoice = \"21m00Tcm4TlvDq8ikWAM\""
        )
        .is_ok()
    );
    assert!(tts("kind = \"deepgram\"\nurl = \"http://self-hosted:8080\"").is_ok());
}

#[test]
fn a_vendor_without_a_key_is_a_problem() {
    for (kind, name, variable) in [
        ("openai", "OpenAI", "OPENAI_API_KEY"),
        ("elevenlabs", "ElevenLabs", "ELEVENLABS_API_KEY"),
        ("deepgram", "Deepgram", "DEEPGRAM_API_KEY"),
    ] {
        let expected = format!(
            "7:8: [dialogue.tts] has no `api_key`, and {name} answers nobody without; \
             add api_key = \"env:{variable}\""
        );
        assert_eq!(problem(&format!("kind = {kind:?}")), expected);
    }
    let by_header = "kind = \"elevenlabs\"\nheaders = { Xi-Api-Key = \"env:ELEVENLABS_API_KEY\" }";
    assert!(tts(by_header).is_ok());
    let pasted = problem("kind = \"openai\"\napi_key = \"Bearer sk-1\"");
    assert!(!pasted.contains("sk-1"), "{pasted}");
    assert!(pasted.contains("the value has a space, or what is no key's"), "{pasted}");
    // Nobody is called in echo mode.
    assert!(check("[dialogue.tts]\nkind = \"openai\"", &[]).is_ok());
}

#[test]
fn a_key_of_another_kind_is_told_of_by_kind() {
    let key = "api_key = \"k\"";
    for (keys, said) in [
        (
            format!("kind = \"openai\"\n{key}\nmodel_id = \"tts-1\""),
            "9:1: `model_id` in [dialogue.tts] is not a key of kind = \"openai\"; \
             it belongs to kind = \"elevenlabs\"",
        ),
        (
            format!("kind = \"elevenlabs\"\n{key}\nvoice = \"alloy\""),
            "9:1: `voice` in [dialogue.tts] is not a key of kind = \"elevenlabs\"; \
             it belongs to kind = \"webhook\" or \"openai\"",
        ),
        (
            format!("kind = \"deepgram\"\n{key}\npcm_rate = 8000"),
            "9:1: `pcm_rate` in [dialogue.tts] is not a key of kind = \"deepgram\"; \
             it belongs to kind = \"webhook\"",
        ),
        (
            format!("url = \"http://a/\"\n{key}"),
            "8:1: `api_key` in [dialogue.tts] is not a key of kind = \"webhook\"; \
             it belongs to kind = \"openai\" or \"elevenlabs\" or \"deepgram\"",
        ),
        (
            format!("kind = \"deepgram\"\n{key}\nmodle = \"aura-2-thalia-en\""),
            "9:1: unknown key `modle` in [dialogue.tts]; did you mean `model`?",
        ),
        // One slip brings one problem.
        (
            format!("kind = \"elevenlab\"\n{key}\nvoice_id = \"JBFqnCBsd6RMkjVDRZzb\""),
            "7:8: `kind` in [dialogue.tts]: `\"elevenlab\"` is not one of its words; did you mean \"elevenlabs\"? \
             write \"webhook\" or \"openai\" or \"elevenlabs\" or \"deepgram\"",
        ),
    ] {
        assert_eq!(problem(&keys), said, "{keys}");
    }
}

#[test]
fn what_a_vendor_would_refuse_is_told_of_before() {
    for (keys, said) in [
        (
            "kind = \"elevenlabs\"\napi_key = \"k\"\nvoice_id = \"alloy\"",
            "9:12: `voice_id` in [dialogue.tts]: `\"alloy\"` is a voice of OpenAI, and this is ElevenLabs; \
             write the ID of a voice, such as \"JBFqnCBsd6RMkjVDRZzb\", or kind = \"openai\"",
        ),
        (
            "kind = \"openai\"\napi_key = \"k\"\nvoice = \"21m00Tcm4TlvDq8ikWAM\"",
            "9:9: `voice` in [dialogue.tts]: `\"21m00Tcm4TlvDq8ikWAM\"` is a voice of ElevenLabs, and this is \
             OpenAI; write a voice such as \"alloy\", or kind = \"elevenlabs\"",
        ),
        (
            "kind = \"openai\"\napi_key = \"k\"\nmodel = \"aura-2-thalia-en\"",
            "9:9: `model` in [dialogue.tts]: `\"aura-2-thalia-en\"` is a model of Deepgram, and this is OpenAI; \
             write a model such as \"gpt-4o-mini-tts\", or kind = \"deepgram\"",
        ),
        (
            "kind = \"deepgram\"\napi_key = \"k\"\nmodel = \"alloy\"",
            "9:9: `model` in [dialogue.tts]: `\"alloy\"` is a voice of OpenAI, and this is Deepgram; \
             write a model such as \"aura-2-thalia-en\", or kind = \"openai\"",
        ),
        (
            "kind = \"elevenlabs\"\napi_key = \"k\"\nvoice_id = \"../secret\"",
            "9:12: `voice_id` in [dialogue.tts] is no ID of a voice: these are letters and digits; \
             write the ID of a voice, such as \"JBFqnCBsd6RMkjVDRZzb\"",
        ),
        (
            "kind = \"deepgram\"\napi_key = \"k\"\npath = \"/v1\"",
            "9:8: `path` in [dialogue.tts] goes with `upstream`, and there is none; \
             add the `upstream`, or write a `url`",
        ),
        (
            "kind = \"openai\"\napi_key = \"k\"\nresponse_format = \"opus\"",
            "9:19: `response_format` in [dialogue.tts]: `\"opus\"` is not in this version yet; \
             write \"pcm\" or \"wav\" or \"mp3\" or \"flac\"",
        ),
        (
            "kind = \"elevenlabs\"\napi_key = \"k\"\nvoice_settings = { stability = 2, pitch = 1 }",
            "9:32: `stability` in [dialogue.tts.voice_settings]: `2` is too large; write a number from 0 to 1\n\
             gateway.toml:9:35: unknown key `pitch` in [dialogue.tts.voice_settings]; \
             known here: similarity_boost, speed, stability, style, use_speaker_boost",
        ),
    ] {
        assert_eq!(problem(keys), said, "{keys}");
    }
}

/// What these keys of a recogniser mean.
fn stt(keys: &str) -> Result<Stt, String> {
    dialogue(keys, "url = \"http://a/\"").map(|(stt, _)| stt)
}

#[test]
fn a_streaming_recogniser_is_told_by_its_vendors_names() {
    let Stt::Deepgram(heard) = stt("kind = \"deepgram\"\napi_key = \"env:DEEPGRAM_API_KEY\"").unwrap() else {
        panic!()
    };
    assert_eq!(heard.endpoint.url_of("api.deepgram.com:443"), "https://api.deepgram.com:443/v1");
    assert_eq!((&*heard.model, heard.language.as_deref()), ("nova-3", Some("en")));
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!((heard.endpointing, heard.utterance_end), (ms(300), ms(1000)));
    assert_eq!((heard.smart_format, heard.punctuate, heard.keyterm.len()), (false, true, 0));

    let keys = "kind = \"deepgram\"\nurl = \"ws://here:8080/v1/listen?tag=a\"\nmodel = \"nova-3-medical\"\n\
                endpointing = 0\nutterance_end_ms = 0\nkeyterm = [\"Acme\", \"Wilmersdorf\"]";
    let Stt::Deepgram(heard) = stt(keys).unwrap() else { panic!() };
    assert_eq!(heard.endpoint.url_of("here:8080"), "http://here:8080/v1/listen?tag=a");
    assert_eq!((heard.endpointing, heard.utterance_end, heard.api_key), (None, None, None));
    assert_eq!(heard.keyterm, ["Acme", "Wilmersdorf"]);

    let Stt::Vosk(heard) = stt("kind = \"vosk\"\nurl = \"wss://here/ws\"\nphrase_list = [\"yes\"]").unwrap()
    else {
        panic!()
    };
    assert_eq!(heard.endpoint.url_of("here:443"), "https://here:443/ws");
    assert_eq!(heard.phrase_list, ["yes"]);
}

#[test]
fn what_a_streaming_recogniser_cannot_do_is_a_problem() {
    let key = "kind = \"deepgram\"\napi_key = \"env:DEEPGRAM_API_KEY\"";
    for (keys, told) in [
        ("kind = \"deepgram\"".to_owned(), "has no `api_key`"),
        (format!("{key}\nmodel = \"aura-2-thalia-en\""), "is a voice"),
        (format!("{key}\nmodel = \"flux-general-en\""), "/v2/listen"),
        (format!("{key}\nmodel = \"whisper-1\""), "OpenAI"),
        (format!("{key}\nmodel = \"nova-2\"\nkeyterm = [\"x\"]"), "is for nova-3"),
        (format!("{key}\nkeyterm = [\" \"]"), "is empty"),
        (format!("{key}\nutterance_end_ms = 500"), "1000 to 5000, or 0"),
        (format!("{key}\nendpointing = 9000"), "0 to 5000"),
        (format!("{key}\nformat = \"wav\""), "webhook"),
        ("kind = \"vosk\"".to_owned(), "url = \"ws://127.0.0.1:9001/stt\""),
        ("kind = \"vosk\"\nurl = \"here:2700\"".to_owned(), "does not start with ws:// or wss://"),
        ("kind = \"vosk\"\nurl = \"ws://a/\"\nmodel = \"x\"".to_owned(), "deepgram"),
        ("url = \"ws://a/\"".to_owned(), "does not start with http:// or https://"),
    ] {
        let said = stt(&keys).expect_err(&keys);
        assert!(said.contains(told), "{keys}\n{said}");
    }
}
