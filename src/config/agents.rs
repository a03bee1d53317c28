//! Agents that are neither a webhook nor a vendor's: an app written for Twilio's ConversationRelay.

use super::meant::*;
use super::services::{Place, endpoint};
use super::vendors;
use super::written::Table;

pub(super) fn relay(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Agent> {
    let endpoint = endpoint(t, &Place { websocket: true, ..*place });
    let language = vendors::language(t, "language").unwrap_or_else(|| "en-US".to_owned());
    Some(Agent::ConversationRelay(RelayAgent { endpoint: endpoint?, language }))
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::check;
    use super::*;

    /// The agent of a dialogue with these keys, the first of them on line 6.
    fn agent(keys: &str) -> Result<Agent, String> {
        let text = format!(
            "[dialogue]\nmode = \"dialogue\"\nstt.url = \"http://a/\"\ntts.url = \"http://a/\"\n\
             [dialogue.agent]\n{keys}\n[upstreams.bots]\nservers = [\"bots:9002\"]\ntls = true"
        );
        match check(&text, &[("KEY", "sk-1")])?.dialogue.mode {
            Mode::Dialogue { agent, .. } => Ok(agent),
            Mode::Echo | Mode::Relay { .. } | Mode::Realtime(_) => panic!("echo"),
        }
    }

    #[test]
    fn a_model_is_its_vendors_unless_somebody_says_otherwise() {
        let least = agent("kind = \"openai\"\napi_key = \"env:KEY\"").unwrap();
        let Agent::OpenAi(chat) = least else { panic!("{least:?}") };
        assert_eq!(chat.endpoint.url_of("api.openai.com:443"), "https://api.openai.com:443/v1");
        assert_eq!((chat.api_key, &*chat.model), (Some(Secret("sk-1".to_owned())), "gpt-4.1-mini"));
        assert_eq!((chat.instructions, chat.temperature, chat.reasoning_effort), (None, None, None));
        assert_eq!((chat.max_tokens, chat.max_completion_tokens, chat.history_turns), (None, None, 20));
        assert_eq!(chat.tools, Tool::ALL);

        let local = agent(
            "kind = \"openai\"\nurl = \"http://ollama:11434/v1\"\nmodel = \"qwen3:8b\"\ntools = [\"hangup\"]\n\
             instructions = \"Be brief.\"\ntemperature = 0\nmax_completion_tokens = 99\nhistory_turns = 0\n\
             reasoning_effort = \"none\"",
        )
        .unwrap();
        let Agent::OpenAi(chat) = local else { panic!("{local:?}") };
        assert_eq!(chat.endpoint.upstream.servers, ["ollama:11434"]);
        assert_eq!((chat.api_key, &*chat.model, chat.tools), (None, "qwen3:8b", vec![Tool::Hangup]));
        assert_eq!((chat.temperature, chat.max_completion_tokens), (Some(0.0), Some(99)));
        assert_eq!((chat.history_turns, chat.reasoning_effort.as_deref()), (0, Some("none")));
    }

    #[test]
    fn an_app_has_a_socket() {
        let by_url = agent("kind = \"conversation_relay\"\nurl = \"wss://app.example.com/ws?x=1\"").unwrap();
        let Agent::ConversationRelay(relay) = by_url else { panic!("{by_url:?}") };
        assert_eq!(relay.endpoint.upstream.servers, ["app.example.com:443"]);
        assert!(relay.endpoint.upstream.tls);
        assert_eq!((&*relay.endpoint.path, &*relay.language), ("/ws?x=1", "en-US"));
        let by_name =
            agent("kind = \"conversation_relay\"\nupstream = \"bots\"\npath = \"/ws\"\nlanguage = \"de-DE\"")
                .unwrap();
        let Agent::ConversationRelay(relay) = by_name else { panic!("{by_name:?}") };
        assert_eq!(relay.endpoint.url_of("bots:9002"), "https://bots:9002/ws");
        assert_eq!(relay.language, "de-DE");
    }

    #[test]
    fn what_does_not_fit_an_agent_is_told() {
        let key = "kind = \"openai\"\napi_key = \"env:KEY\"";
        let relay = "kind = \"conversation_relay\"";
        for (keys, said) in [
            (
                "kind = \"openai\"".to_owned(),
                "6:8: [dialogue.agent] has no `api_key`, and OpenAI answers nobody without; \
                 add api_key = \"env:OPENAI_API_KEY\"",
            ),
            (
                format!("{key}\nmax_tokens = 9\nmax_completion_tokens = 9"),
                "8:14: [dialogue.agent] has both `max_tokens` and `max_completion_tokens`, two names of one \
                 limit; keep the one that the model takes: the second is the newer",
            ),
            (
                format!("{key}\ntemperature = 3"),
                "8:15: `temperature` in [dialogue.agent]: `3` is too large; write a number from 0 to 2",
            ),
            (
                format!("{key}\nlanguage = \"en-US\""),
                "8:1: `language` in [dialogue.agent] is not a key of kind = \"openai\"; \
                 it belongs to kind = \"conversation_relay\"",
            ),
            (
                format!("{relay}\nurl = \"ftp://app/ws\""),
                "7:7: `url` in [dialogue.agent]: the value does not start with ws:// or wss://; \
                 write a URL such as \"ws://127.0.0.1:2700\"",
            ),
            (
                relay.to_owned(),
                "5:11: [dialogue.agent] has neither `url` nor `upstream`, and `mode` is \"dialogue\"; \
                 add one, such as url = \"ws://127.0.0.1:9001/agent\"",
            ),
            (
                format!("{relay}\nurl = \"ws://a/\"\nmodel = \"gpt-4.1\""),
                "8:1: `model` in [dialogue.agent] is not a key of kind = \"conversation_relay\"; \
                 it belongs to kind = \"openai\"",
            ),
        ] {
            assert_eq!(agent(&keys), Err(format!("gateway.toml:{said}")), "{keys}");
        }
        let said = agent(&format!("{key}\ntools = [\"hangup\", \"dance\"]")).unwrap_err();
        assert!(said.contains("`\"dance\"` is not one of the functions"), "{said}");
    }
}
