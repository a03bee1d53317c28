//! Deepgram's text-to-speech: all but the text is in the query, and what comes is the line's own
//! μ-law, without a head.

use reqwest::header::AUTHORIZATION;
use serde_json::json;

use super::Pools;
use super::http::{Unusable, Wire};
use super::vendor::Operation;
use crate::config::DeepgramTts;

/// What is asked for.
pub(super) const FORMAT: &str = "audio/basic";

pub(super) fn speech(config: &DeepgramTts, pools: &mut Pools) -> Result<Wire, Unusable> {
    let mut query = vec![
        ("model", config.model.clone()),
        ("encoding", "mulaw".to_owned()),
        ("sample_rate", "8000".to_owned()),
        ("container", "none".to_owned()),
    ];
    query.extend(config.speed.map(|speed| ("speed", speed.to_string())));
    query.extend(config.mip_opt_out.map(|out| ("mip_opt_out", out.to_string())));
    let operation = Operation {
        path: "/speak",
        query: &query,
        header: AUTHORIZATION,
        scheme: "Token ",
        keys: &["model", "speed", "mip_opt_out"],
    };
    operation.wire(&config.endpoint, config.api_key.as_ref(), pools)
}

pub(super) fn body(text: &str) -> Vec<u8> {
    json!({ "text": text }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Request, failed, heard, hum, openai_stt, spoken};
    use super::super::tests::ids;
    use super::*;
    use crate::call::{FailureKind, Input};
    use crate::config::{Secret, Tts};

    async fn speech_of(
        answer: impl Into<Vec<u8>>,
        change: impl Fn(&mut DeepgramTts),
    ) -> (Vec<Input<'static>>, Request) {
        let mut fake = Fake::answering(answer).await;
        let services = fake.services_as(openai_stt, |endpoint| {
            let (api_key, model) = (Some(Secret("dg-hush".to_owned())), "aura-2-thalia-en".to_owned());
            let mut tts = DeepgramTts { endpoint, api_key, model, speed: None, mip_opt_out: None };
            change(&mut tts);
            Tts::Deepgram(tts)
        });
        let inputs = heard(|to| services.for_call(ids(), to).say(3, "Grüße.".to_owned())).await;
        (inputs, fake.request().await)
    }

    #[tokio::test]
    async fn a_sentence_is_posted_and_its_mulaw_passes_untouched() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: audio/mulaw\r\nContent-Length: 1600\r\n\r\n";
        let answer = [head.as_bytes(), &hum(1600)].concat();
        let (inputs, request) = speech_of(answer, |_| {}).await;
        let line = "post /v1/speak?model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000&container=none http/1.1\r\n";
        assert!(request.head.starts_with(line), "{}", request.head);
        assert!(request.has("authorization: token dg-hush"), "{}", request.head);
        assert!(request.has("content-type: application/json"), "{}", request.head);
        assert_eq!(request.body, "{\"text\":\"Grüße.\"}".as_bytes());
        assert!(spoken(&inputs) == hum(1600), "it was changed on the way");
    }

    #[tokio::test]
    async fn what_is_set_goes_into_the_query() {
        let (_, request) = speech_of("HTTP/1.1 204 No Content\r\n\r\n", |tts| {
            tts.model = "aura 2&x".to_owned();
            tts.speed = Some(0.9);
            tts.mip_opt_out = Some(true);
        })
        .await;
        let line = "post /v1/speak?model=aura+2%26x&encoding=mulaw&sample_rate=8000&container=none\
                    &speed=0.9&mip_opt_out=true http/1.1\r\n";
        assert!(request.head.starts_with(line), "{}", request.head);
    }

    #[tokio::test]
    async fn a_limit_is_told_of_with_the_time_to_wait() {
        let error = r#"{"err_code":"TOO_MANY_REQUESTS","err_msg":"Too many requests. Please try again later","request_id":"1"}"#;
        let answer = format!(
            "HTTP/1.1 429 Too Many\r\nRetry-After: 20\r\nContent-Length: {}\r\n\r\n{error}",
            error.len()
        );
        let (inputs, _) = speech_of(answer, |_| {}).await;
        let failure = failed(&inputs);
        assert_eq!(failure.kind, FailureKind::Http4xx);
        assert!(failure.why.starts_with("the vendor refused: POST http://"), "{}", failure.why);
        // The query, where others keep keys, is not told.
        let told = "/v1/speak answered 429: Too many requests. Please try again later (TOO_MANY_REQUESTS); \
                    it asks to wait 20 s";
        assert!(failure.why.ends_with(told), "{}", failure.why);
    }
}
