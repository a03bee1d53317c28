//! `[dialogue.realtime]`: a model that hears and speaks by itself, its keys by the names that OpenAI's
//! Realtime API has for them.

use super::document::Refused;
use super::meant::*;
use super::services::Place;
use super::vendors::{self, Account, OPENAI_REALTIME};
use super::written::Table;

/// By which the model asks the app anything.
const ASK_AGENT: &str = "ask_agent";

pub(super) fn realtime(
    t: &mut Table<'_, '_>,
    place: &Place<'_>,
    app: Option<Endpoint>,
    barge_in: bool,
) -> Option<Realtime> {
    let account = Account::read(t, place, &OPENAI_REALTIME);
    let dialects = [("ga", Dialect::Ga), ("beta", Dialect::Beta)];
    let dialect = t.choice("dialect", &dialects, &[]).unwrap_or(Dialect::Ga);
    let model = account.name(t, "model", "a model such as \"gpt-realtime\"", Some("gpt-realtime"));
    let text = |t: &mut Table<'_, '_>, key| t.text(key).filter(|text| !text.trim().is_empty());
    let voice = text(t, "voice").or_else(|| (!account.elsewhere).then(|| "marin".to_owned()));
    let instructions = text(t, "instructions");
    let temperature = t.number("temperature", 0.0..=2.0);
    let speed = t.number("speed", 0.25..=1.5);
    for (key, of, other) in [("temperature", Dialect::Beta, "beta"), ("speed", Dialect::Ga, "ga")] {
        if t.has(key) && dialect != of {
            let why = format!("`{key}` in [dialogue.realtime] is only in dialect = {other:?}");
            t.complain(key, why, "leave it out".to_owned());
        }
    }
    let max_output_tokens = t.count("max_output_tokens", 1..=4096);
    let turn_detection = turn_detection(t, barge_in);
    let transcription = transcription(t);
    let fields = ["near_field", "far_field"].map(|word| (word, word));
    let noise_reduction = t.choice("noise_reduction", &fields, &[]);
    let speaks_first = t.flag("speaks_first").unwrap_or(false);
    let tools = vendors::tools(t, &[Tool::Hangup]);
    let functions = functions(t, app.is_some());
    Some(Realtime {
        endpoint: account.endpoint?,
        api_key: account.api_key,
        dialect,
        model: model?,
        voice,
        instructions,
        temperature,
        speed,
        max_output_tokens,
        turn_detection,
        transcription,
        noise_reduction,
        speaks_first,
        tools,
        functions,
        app,
    })
}

/// The keys of one kind of detection are wrong beside another.
fn turn_detection(t: &mut Table<'_, '_>, barge_in: bool) -> TurnDetection {
    let kinds = ["server_vad", "semantic_vad", "none"].map(|word| (word, word));
    let kind = t.choice("turn_detection", &kinds, &[]).unwrap_or("server_vad");
    let threshold = t.number("threshold", 0.0..=1.0);
    let prefix_padding_ms = t.whole("prefix_padding_ms", 0..=5000);
    let silence_duration_ms = t.whole("silence_duration_ms", 100..=10_000);
    let idle_timeout_ms = t.whole("idle_timeout_ms", 5000..=30_000);
    let levels = ["low", "medium", "high", "auto"].map(|word| (word, word));
    let eagerness = t.choice("eagerness", &levels, &[]);
    let interrupt_response = t.flag("interrupt_response");
    for (key, of) in [
        ("threshold", "server_vad"),
        ("prefix_padding_ms", "server_vad"),
        ("silence_duration_ms", "server_vad"),
        ("idle_timeout_ms", "server_vad"),
        ("eagerness", "semantic_vad"),
    ] {
        if t.has(key) && kind != of {
            let why = format!("`{key}` in [dialogue.realtime] goes with turn_detection = {of:?}");
            t.complain(key, why, format!("leave it out: it is {kind:?}"));
        }
    }
    if t.has("interrupt_response") && kind == "none" {
        let why = "`interrupt_response` in [dialogue.realtime] is for the server's ear, and \
                   turn_detection is \"none\"";
        t.complain("interrupt_response", why.to_owned(), "write `barge_in` in [turn]".to_owned());
    }
    let interrupts = interrupt_response.unwrap_or(barge_in);
    match kind {
        "none" => TurnDetection::None { interrupts },
        "semantic_vad" => TurnDetection::SemanticVad { eagerness, interrupt_response: interrupts },
        _ => TurnDetection::ServerVad {
            threshold,
            prefix_padding_ms,
            silence_duration_ms,
            idle_timeout_ms,
            interrupt_response: interrupts,
        },
    }
}

fn transcription(t: &mut Table<'_, '_>) -> Option<Transcription> {
    t.section("transcription", |t| {
        let wanted = "a model such as \"gpt-4o-mini-transcribe\"";
        let model = t.parsed("model", wanted, |text| match text.trim() {
            "" => Err(Refused::from("is empty")),
            model => Ok(model.to_owned()),
        });
        let (language, prompt) = (vendors::language(t, "language"), t.text("prompt"));
        if t.is_written() && !t.has("model") {
            let why = "[dialogue.realtime.transcription] has no `model`".to_owned();
            t.complain("", why, format!("write {wanted}"));
        }
        Some(Transcription { model: model?, language, prompt })
    })
}

/// The functions of the app; with an app and none of them, one by which the model may ask it anything.
fn functions(t: &mut Table<'_, '_>, has_app: bool) -> Vec<Function> {
    let mut functions = Vec::new();
    t.sections("functions", |name, t| {
        let is_name = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        let sound = (1..=64).contains(&name.len()) && name.bytes().all(is_name);
        if !sound || Tool::ALL.iter().any(|tool| tool.name() == name) {
            let why =
                format!("{:?} cannot be the name of a function of yours", name.escape_debug().to_string());
            t.complain("", why, "use letters, digits, _ and -, and no name of [tools]".to_owned());
        }
        let description = t.text("description");
        let wanted = "a JSON schema of an object, such as '{\"type\": \"object\", \"properties\": {}}'";
        let parameters = t.parsed("parameters", wanted, |text| {
            let schema: serde_json::Value = serde_json::from_str(text).map_err(|_| "is not JSON")?;
            if schema["type"] == "object" { Ok(text.to_owned()) } else { Err("is not of an object".into()) }
        });
        let parameters = parameters.unwrap_or_else(|| "{\"type\":\"object\",\"properties\":{}}".to_owned());
        functions.push(Function { name: name.to_owned(), description, parameters });
    });
    if !functions.is_empty() && !has_app {
        let why = "[dialogue.realtime.functions] has functions, and there is no app to do them".to_owned();
        t.complain("functions", why, "add [dialogue.agent] with kind = \"webhook\"".to_owned());
    }
    if functions.is_empty() && has_app {
        functions.push(ask_agent());
    }
    functions
}

fn ask_agent() -> Function {
    let text =
        "{\"type\": \"string\", \"description\": \"The question or the wish, in the caller's words.\"}";
    Function {
        name: ASK_AGENT.to_owned(),
        description: Some(
            "Ask the company's own system, which knows what you do not and can do what you cannot."
                .to_owned(),
        ),
        parameters: format!(
            "{{\"type\": \"object\", \"properties\": {{\"text\": {text}}}, \"required\": [\"text\"]}}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::check;
    use super::*;

    /// The model of a call with these keys, the first of them on line 4.
    fn realtime(keys: &str) -> Result<Realtime, String> {
        let text =
            format!("[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\n{keys}\n[turn]\nbarge_in = false");
        match check(&text, &[("KEY", "sk-1")])?.dialogue.mode {
            Mode::Realtime(realtime) => Ok(realtime),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_is_all_that_is_needed() {
        let least = realtime("api_key = \"env:KEY\"").unwrap();
        assert_eq!(least.endpoint.upstream.servers, ["api.openai.com:443"]);
        assert_eq!((least.endpoint.path.as_str(), least.endpoint.upstream.tls), ("/v1/realtime", true));
        assert_eq!((&*least.model, least.voice.as_deref()), ("gpt-realtime", Some("marin")));
        assert_eq!(
            (least.dialect, least.speaks_first, least.tools),
            (Dialect::Ga, false, vec![Tool::Hangup])
        );
        assert_eq!((least.functions, least.app, least.transcription), (vec![], None, None));
        let TurnDetection::ServerVad { threshold: None, interrupt_response: false, .. } =
            least.turn_detection
        else {
            panic!("{:?}", least.turn_detection);
        };
    }

    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let shown =
            crate::config::SHIPPED.lines().skip_while(|line| !line.starts_with("[dialogue.realtime]"));
        let shown: Vec<&str> = shown.skip(1).take_while(|line| !line.is_empty()).collect();
        let defaults = ["url", "dialect", "model", "voice", "turn_detection", "speaks_first", "tools"];
        let is_default = |line: &&&str| {
            let key = line.trim_start_matches("# ").split('=').next().unwrap_or_default().trim();
            defaults.contains(&key)
        };
        let lines: Vec<&str> = shown.iter().filter(is_default).map(|line| &line[2..]).collect();
        assert_eq!(lines.len(), defaults.len(), "{shown:?}");
        let least = "api_key = \"env:KEY\"";
        assert_eq!(realtime(&format!("{least}\n{}", lines.join("\n"))), realtime(least));
        // The others are examples, which are sound where they do not exclude each other.
        let others =
            shown.iter().filter(|line| !is_default(line) && line.contains(" = ")).map(|line| &line[2..]);
        let sound = others.filter(|line| {
            !["temperature", "eagerness", "headers", "upstream", "path"]
                .iter()
                .any(|key| line.starts_with(key))
                && !line.starts_with(' ')
        });
        let app = "[dialogue.agent]\nurl = \"http://app/agent\"";
        let sound: Vec<&str> =
            sound.map(|line| line.replace("env:OPENAI_API_KEY", "env:KEY").leak() as &str).collect();
        let all = realtime(&format!("{}\n{app}", sound.join("\n"))).unwrap();
        assert_eq!((all.functions.len(), all.transcription.is_some()), (1, true));
    }

    #[test]
    fn everything_may_be_said() {
        let all = realtime(
            "url = \"ws://bot:9000/v1\"\ndialect = \"beta\"\nmodel = \"mine\"\ntemperature = 0.7\n\
             turn_detection = \"semantic_vad\"\neagerness = \"high\"\ninterrupt_response = true\n\
             transcription = { model = \"whisper-1\", language = \"de\" }\nnoise_reduction = \"far_field\"\n\
             speaks_first = true\ntools = [\"hangup\"]\nmax_output_tokens = 400\n\
             functions.order_status.parameters = '{\"type\":\"object\"}'\n\
             [dialogue.agent]\nupstream = \"app\"\npath = \"/agent\"",
        )
        .unwrap();
        assert_eq!(all.endpoint.url_of("bot:9000"), "http://bot:9000/v1");
        assert_eq!((all.dialect, all.voice, all.temperature), (Dialect::Beta, None, Some(0.7)));
        let semantic = TurnDetection::SemanticVad { eagerness: Some("high"), interrupt_response: true };
        assert_eq!(all.turn_detection, semantic);
        assert_eq!(all.transcription.unwrap().model, "whisper-1");
        let parameters = "{\"type\":\"object\"}".to_owned();
        assert_eq!(all.functions, [Function { name: "order_status".into(), description: None, parameters }]);
        assert_eq!(all.app.unwrap().path, "/agent");
    }

    #[test]
    fn an_app_without_functions_may_be_asked_anything() {
        let model = realtime("api_key = \"env:KEY\"\n[dialogue.agent]\nurl = \"http://app/agent\"").unwrap();
        let [ask] = &model.functions[..] else { panic!("{:?}", model.functions) };
        let schema: serde_json::Value = serde_json::from_str(&ask.parameters).unwrap();
        assert_eq!((&*ask.name, schema["properties"]["text"]["type"].as_str()), (ASK_AGENT, Some("string")));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let key = "api_key = \"env:KEY\"";
        for (keys, said) in [
            (
                String::new(),
                "3:11: [dialogue.realtime] has no `api_key`, and OpenAI answers nobody without; \
                 add api_key = \"env:OPENAI_API_KEY\"",
            ),
            (
                format!("{key}\ntemperature = 0.5"),
                "5:15: `temperature` in [dialogue.realtime] is only in dialect = \"beta\"; leave it out",
            ),
            (
                format!("{key}\nturn_detection = \"none\"\nthreshold = 0.5"),
                "6:13: `threshold` in [dialogue.realtime] goes with turn_detection = \"server_vad\"; \
                 leave it out: it is \"none\"",
            ),
            (
                format!("{key}\nturn_detection = \"none\"\ninterrupt_response = true"),
                "6:22: `interrupt_response` in [dialogue.realtime] is for the server's ear, and \
                 turn_detection is \"none\"; write `barge_in` in [turn]",
            ),
            (
                format!("{key}\nvoice = \"alloy\"\nmodel = \"nova-3\""),
                "6:9: `model` in [dialogue.realtime]: `\"nova-3\"` is a model of Deepgram, and this is OpenAI; \
                 write a model such as \"gpt-realtime\", or kind = \"deepgram\"",
            ),
            (
                "url = \"ws://mine/\"".to_owned(),
                "4:7: [dialogue.realtime] has no `model`, and who answers there is not OpenAI; \
                 add the `model` by the name that it has there",
            ),
            (
                format!("{key}\nfunctions.look_up.description = \"x\""),
                "5:1: [dialogue.realtime.functions] has functions, and there is no app to do them; \
                 add [dialogue.agent] with kind = \"webhook\"",
            ),
            (
                format!("{key}\n[dialogue.realtime.transcription]\nlanguage = \"en\""),
                "5:20: [dialogue.realtime.transcription] has no `model`; \
                 write a model such as \"gpt-4o-mini-transcribe\"",
            ),
        ] {
            assert_eq!(realtime(&keys), Err(format!("gateway.toml:{said}")), "{keys}");
        }
        let said = realtime(&format!(
            "{key}\nfunctions.hangup.parameters = '[]'\n[dialogue.agent]\nurl = \"http://app/\""
        ));
        let said = said.unwrap_err();
        assert!(said.contains("is not of an object") && said.contains("cannot be the name"), "{said}");
        let said = check("[dialogue]\nmode = \"realtime\"", &[]).unwrap_err();
        assert!(said.contains("there is no [dialogue.realtime]; add it, with an `api_key`"), "{said}");
    }
}
