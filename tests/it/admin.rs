//! The admin listener: commands for the operator, and for nobody whose page the operator looks at; no
//! secret in anything that it, the log or the commands print.

use crate::world::{Gateway, Wire, voxgate};

fn ask(gateway: &Gateway, request: &str, headers: &str) -> (u16, String) {
    let answer =
        Wire::ask(gateway.admin, &format!("{request} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n"));
    (answer.status(), answer.text().to_owned())
}

#[test]
fn a_web_page_cannot_command_through_the_operators_browser() {
    let gateway = Gateway::start("");
    let status = |request: &str, headers: &str| ask(&gateway, request, headers).0;
    let local = "Host: 127.0.0.1:9090\r\n";
    for by_page in [
        "Origin: https://evil.example.com\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        for command in ["POST /reload", "POST /upgrade"] {
            assert_eq!(status(command, &format!("{local}{by_page}")), 403, "{command} {by_page}");
        }
    }
    // A name that leads here makes the page one of ours, as far as the browser knows.
    for name in ["evil.example.com", "localhost.evil.example.com:9090", "127.0.0.1.evil.example.com"] {
        for request in ["GET /metrics", "GET /readyz", "POST /reload"] {
            assert_eq!(status(request, &format!("Host: {name}\r\n")), 403, "{request} {name}");
        }
    }
    assert_eq!(status("GET /metrics", ""), 403, "no name at all");
    for host in ["127.0.0.1", "localhost:9090", "[::1]:9090"] {
        assert_eq!(status("GET /metrics", &format!("Host: {host}\r\n")), 200, "{host}");
    }
    assert_eq!(status("GET /metrics", &format!("{local}Sec-Fetch-Site: none\r\n")), 200, "typed in");
    assert_eq!(status("GET /reload", local), 404, "a picture's address is no command");
    assert_eq!(gateway.metric("voxgate_config_generation"), 1.0);
}

#[test]
fn with_a_token_the_name_does_not_matter_and_pages_still_do() {
    let gateway = Gateway::start_with("token = \"s3cret\"", "", &[]);
    let with = |more: &str| format!("Host: metrics.example.com\r\nAuthorization: Bearer s3cret\r\n{more}");
    assert_eq!(ask(&gateway, "GET /metrics", &with("")).0, 200);
    assert_eq!(ask(&gateway, "POST /reload", &with("Origin: https://metrics.example.com\r\n")).0, 403);
    assert_eq!(ask(&gateway, "GET /metrics", "Host: metrics.example.com\r\n").0, 401);
}

#[test]
fn no_secret_is_printed_anywhere() {
    let config = "token = \"hunter-admin\"\n[twilio]\nauth_token = \"hunter-auth\"\n\
                  more_auth_tokens = [\"hunter-old\"]\napi_key_sid = \"SK0123456789abcdef0123456789abcdef\"\n\
                  api_key_secret = \"hunter-key\"\naccount_sid = \"AC0123456789abcdef0123456789abcdef\"\n\
                  [dialogue]\nmode = \"dialogue\"\n\
                  [dialogue.stt]\nkind = \"openai\"\napi_key = \"hunter-stt\"\nmodel = \"m\"\nurl = \"http://127.0.0.1:1\"\n\
                  [dialogue.agent]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/?key=hunter-query\"\n\
                  headers = { Authorization = \"hunter-header\" }\n\
                  [dialogue.tts]\nkind = \"elevenlabs\"\napi_key = \"hunter-tts\"\nurl = \"http://127.0.0.1:1\"\n";
    let gateway = Gateway::start_with(config, "", &[("RUST_LOG", "info,voxgate=trace")]);
    let mut printed = Vec::new();
    let bearer = "Host: x\r\nAuthorization: Bearer hunter-admin\r\n";
    for request in ["GET /metrics", "GET /readyz", "GET /none", "POST /reload"] {
        printed.push(ask(&gateway, request, bearer).1);
    }
    printed.push(ask(&gateway, "GET /metrics", "Host: x\r\nAuthorization: Bearer hunter-wrong\r\n").1);
    let file = gateway.config_file();
    let command = |args: &[&str]| {
        let output = voxgate().args(args).arg("--config").arg(&file).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    printed.extend([command(&["config", "print"]), command(&["check"])]);
    // A slip in each line that bears a secret.
    let text = std::fs::read_to_string(&file).unwrap();
    let slips = text.replace("token = ", "tokn = ").replace("api_key = ", "api_kee = ");
    let slips = slips.replace("[\"hunter-old\"]", "\"hunter-old\"");
    std::fs::write(&file, &slips).unwrap();
    let (status, why) = ask(&gateway, "POST /reload", bearer);
    assert_eq!(status, 422, "{why}");
    assert!(why.contains("`more_auth_tokens` in [twilio]: the value is a string"), "{why}");
    printed.extend([why, command(&["check"]), command(&["check", "--json"]), command(&["config", "print"])]);
    std::fs::write(&file, text.replace('"', "'").replacen('\'', "", 1)).unwrap();
    printed.extend([command(&["check"]), command(&["check", "--json"])]);
    printed.extend(gateway.log().iter().map(ToString::to_string));
    assert!(printed.len() > 14);
    for text in printed {
        assert!(!text.contains("hunter"), "a secret in {text}");
    }
}

/// The unit has the secrets in its EnvironmentFile, and root's shell does not.
#[test]
fn a_command_needs_no_secret_but_the_admin_listeners() {
    let config = "token = \"env:VOXGATE_ADMIN_TOKEN\"\n[twilio]\nsignature = \"enforce\"\n\
                  [dialogue]\nmode = \"dialogue\"\n\
                  [dialogue.stt]\nkind = \"deepgram\"\napi_key = \"env:DEEPGRAM_API_KEY\"\nurl = \"http://127.0.0.1:1\"\n\
                  [dialogue.agent]\nurl = \"http://127.0.0.1:1\"\n[dialogue.tts]\nurl = \"http://127.0.0.1:1\"\n";
    let token = ("VOXGATE_ADMIN_TOKEN", "s3cret");
    let secrets = [token, ("TWILIO_AUTH_TOKEN", "t0ken"), ("DEEPGRAM_API_KEY", "k3y")];
    let mut gateway = Gateway::start_with(config, "public_url = \"https://bot.example.com\"", &secrets);
    let file = gateway.config_file();
    let told = |command: &str, env: &[(&str, &str)]| {
        let mut voxgate = voxgate();
        let voxgate = voxgate.env_remove(token.0).args([command, "--config"]).arg(&file);
        let done = voxgate.envs(env.iter().copied()).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    for command in ["reload", "upgrade"] {
        let (done, said) = told(command, &[]);
        let missing =
            "`token` in [admin]: `\"env:VOXGATE_ADMIN_TOKEN\"` needs VOXGATE_ADMIN_TOKEN, which is not set";
        assert!(!done && said.contains(missing) && said.lines().count() == 1, "{said}");
        let (done, said) = told(command, &[(token.0, "another")]);
        assert!(!done && said.contains("a token is needed"), "{said}");
    }
    assert_eq!(told("reload", &[token]), (true, "generation 2 counts\n".to_owned()));
    let (done, said) = told("upgrade", &[token]);
    assert!(done && said.contains("takes over"), "{said}");
    gateway.event("STARTED", 1);
    assert!(gateway.ended().success());
}
