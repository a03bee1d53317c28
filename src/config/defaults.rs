//! What holds where nobody says otherwise. The shipped `gateway.toml` shows the same values, and a
//! test holds the two together.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::meant::*;

impl Default for Config {
    fn default() -> Config {
        Config {
            server: Server {
                listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
                public_url: None,
                deploy_id: "dev".to_owned(),
                drain: Duration::from_mins(15),
                drain_goodbye: "Sorry, this call has to end now. Please call again in a moment.".to_owned(),
                threads: 0,
                tls: None,
                acme: None,
                trusted_proxies: Vec::new(),
                proxy_protocol: false,
            },
            admin: Admin { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)), token: None },
            log: Log { format: LogFormat::Text, transcripts: false },
            twilio: Twilio {
                path: "/ws/twilio-media".to_owned(),
                subprotocol: "audio.twilio.com".to_owned(),
                ping_interval: Duration::from_secs(10),
                stream_status: "/webhook/stream_status".to_owned(),
                incoming_call: "/webhook/incoming_call".to_owned(),
                stream_ended: "/webhook/stream_ended".to_owned(),
                twiml: Twiml::Forward,
                resume: false,
                twiml_fix: false,
                fallback_twiml: "<Response><Say>We are sorry, we cannot take your call right now. \
                                 Please call again later.</Say><Hangup/></Response>"
                    .to_owned(),
                busy_twiml: "<Response><Say>All our lines are busy at the moment. Please call again later.\
                             </Say><Hangup/></Response>"
                    .to_owned(),
                token: Strictness::Warn,
                signature: Strictness::Off,
                more_auth_tokens: Vec::new(),
                auth_token: None,
                api: CarrierApi {
                    url: "https://api.twilio.com".to_owned(),
                    timeout: Duration::from_secs(5),
                    account_sid: None,
                    credentials: None,
                    hangup: Hangup::Rest,
                    transfer: Transfer {
                        caller_id: None,
                        timeout: Duration::from_secs(30),
                        action: None,
                        status_callback: None,
                        apology: "Sorry, I could not put you through.".to_owned(),
                    },
                },
            },
            turn: Turn {
                vad: Vad::Neural,
                vad_rms: 210.0,
                eou: Duration::from_millis(450),
                adaptive_eou: true,
                early_agent: false,
                idle_prompt: None,
                idle_prompt_text: "Are you still there?".to_owned(),
                idle_hangup: None,
                idle_hangup_text: "Goodbye.".to_owned(),
                barge_in: true,
                languages: LANGUAGES.map(str::to_owned).to_vec(),
                backchannels: Vec::new(),
                stop_words: Vec::new(),
                dedup_window: Duration::from_secs(8),
                greeting: String::new(),
                max_utterance: Duration::from_secs(30),
                dtmf_timeout: Duration::from_secs(2),
                dtmf_num_digits: 64,
                dtmf_finish_on_key: Some('#'),
            },
            playout: Playout { lead: Duration::from_millis(100) },
            dialogue: Dialogue {
                mode: Mode::Echo,
                apology: "Sorry, something went wrong. Please say that again.".to_owned(),
                apology_audio: None,
                filler: String::new(),
                filler_after: Duration::from_millis(1500),
                reply_deadline: Duration::from_secs(6),
                fallbacks: Fallbacks::default(),
                speech_cache: 16 * 1024 * 1024,
            },
            app: Upstream::new("app", vec!["127.0.0.1:5000".to_owned()]),
            recording: Recording {
                folder: None,
                keep: Duration::from_hours(7 * 24),
                most_bytes: 10_000 * 1_000_000,
            },
            traces: None,
            limits: Limits {
                max_calls: 10_000,
                max_calls_per_number: 0,
                max_unstarted: 1_000,
                handshakes_per_second: 0,
                max_call: Some(Duration::from_hours(4)),
                max_call_goodbye: "I am sorry, we have to end this call here. Goodbye.".to_owned(),
                max_memory: 0,
                max_message: 65_536,
                start_timeout: Duration::from_secs(5),
                write_timeout: Duration::from_secs(5),
                media_timeout: Duration::from_secs(30),
                http: HttpLimits {
                    max_head: 65_536,
                    max_body: 100 * 1_000_000,
                    head_timeout: Duration::from_secs(15),
                    keepalive: Duration::from_secs(75),
                    body_timeout: Duration::from_secs(30),
                    min_body_rate: 500,
                },
            },
        }
    }
}

impl Upstream {
    /// A pool with the default time-outs and bounds, spoken to in plain HTTP.
    pub fn new(name: &str, servers: Vec<String>) -> Upstream {
        Upstream {
            name: name.to_owned(),
            servers,
            tls: false,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            // gunicorn closes an unused connection after 2 s, and a request must not meet that.
            idle_timeout: Duration::from_secs(1),
            max_in_flight: 256,
            breaker: BreakerLimits { failures: NonZeroU32::new(5), cooldown: Duration::from_secs(5) },
            health: HealthCheck { path: None, interval: Duration::from_secs(5) },
        }
    }
}

impl Default for Fallbacks {
    fn default() -> Fallbacks {
        let after = Duration::from_secs(2);
        let (stt, agent, tts) = (Vec::new(), Vec::new(), Vec::new());
        Fallbacks { stt, stt_after: after, agent, agent_after: after, tts, tts_after: after }
    }
}

impl Default for RawAudio {
    fn default() -> RawAudio {
        RawAudio { pcm_rate: 16_000 }
    }
}
