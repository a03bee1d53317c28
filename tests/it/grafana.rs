//! What operators watch, on a real Prometheus that scrapes a gateway with calls on it: every panel's
//! query has an answer, every metric keeps the conventions, every alert fires on what it is for.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::Step;

use crate::tls::{self, Folder};
use crate::world::{Bot, Gateway, block_on, call, free_port, project, say, until};

const PATIENCE: Duration = Duration::from_secs(15);

/// A Prometheus of its own, which looks every second.
struct Prometheus {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Prometheus {
    fn start(gateways: &[&Gateway]) -> Prometheus {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("voxgate-prometheus-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // As shipped, but for the times and the places.
        let shipped = fs::read_to_string(project().join("grafana/prometheus/prometheus.yml")).unwrap();
        let rules = project().join("grafana/prometheus");
        let targets: Vec<String> =
            gateways.iter().map(|one| format!("\"127.0.0.1:{}\"", one.admin)).collect();
        let config = shipped
            .replace("15s", "1s")
            .replace("\"127.0.0.1:9090\"", &targets.join(", "))
            .replace("- rules.yml", &format!("- {}/rules.yml", rules.display()))
            .replace("- alerts.yml", &format!("- {}/alerts.yml", rules.display()));
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, port, folder }
    }

    /// The answer to a GET of its API; `None` while it does not answer.
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut url = reqwest::Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        block_on(async { reqwest::get(url).await.ok()?.text().await.ok() })
            .and_then(|text| serde_json::from_str(&text).ok())
    }

    /// The series that a query has now.
    fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get("/api/v1/query", &[("query", query)]).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Of Debian's package, as `tests/setup.sh` has unpacked it.
fn program(name: &str) -> PathBuf {
    project().join(".venv/prometheus/usr/bin").join(name)
}

fn dashboards() -> Vec<Value> {
    let files = fs::read_dir(project().join("grafana/dashboards")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.map(|text| serde_json::from_str(&text).unwrap()).collect()
}

/// What is wrong with the answer to a panel's query: nothing came, nothing is a number, or a word of
/// its legend is no label of the series.
fn wrong(series: &[Value], legend: &str) -> Option<String> {
    let wanted: Vec<&str> =
        legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).map(str::trim).collect();
    let numbers = series.iter().filter(|one| one["value"][1].as_str() != Some("NaN")).count();
    if numbers == 0 {
        return Some(format!("{} series, and none has a number", series.len()));
    }
    let unlabelled = |one: &&Value| wanted.iter().any(|label| one["metric"][label].is_null());
    series.iter().find(unlabelled).map(|one| format!("{} lacks a label of {legend:?}", one["metric"]))
}

#[test]
fn every_panel_shows_something_and_no_alert_is_false() {
    let more = "[turn]\ngreeting = \"Welcome to the garden centre.\"\n[twilio]\nping_interval = \"5s\"\n";
    let bot = Bot { more: more.to_owned(), ..Bot::real() };
    let gateway = bot.start();
    // Another that terminates TLS: when its certificate expires is a panel too.
    let folder = Folder::new("panels");
    let secure = Gateway::start(&tls::table(&folder.pair("first", 2099)));
    let prometheus = Prometheus::start(&[&gateway, &secure]);
    let scrapes = || prometheus.get("/api/v1/query", &[("query", "min(count_over_time(up[10m]))")]);
    let scraped = |times: f64| {
        let answer = scrapes()?;
        let seen = answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()?;
        (seen >= times).then_some(seen)
    };
    // A rate needs a look before what it counts and one after it.
    let before = until("Prometheus to look", || scraped(2.0));
    let script = vec![
        Step::wait_for_reply_end(PATIENCE),
        Step::Say(say("book a table for two people")),
        Step::Interrupt {
            after: Duration::from_millis(500),
            audio: say("wait i have another question"),
            timeout: PATIENCE,
        },
        Step::wait_for_reply_end(PATIENCE),
    ];
    let report = call(&gateway, script);
    assert_eq!(report.problem(), None);
    gateway.event("PNG_PONG_RX", 0);
    for path in ["/", "/healthz", "/version", "/webhook/stream_status", "/ws/twilio-media"] {
        block_on(async { reqwest::get(gateway.http(path)).await.unwrap() });
    }
    let at_end = scraped(before).unwrap();
    until("Prometheus to look again", || scraped(at_end + 2.0));

    let mut missed = Vec::new();
    let mut queries = 0;
    for dashboard in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let (query, legend) =
                    (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
                let asked = query.replace("$instance", ".+").replace("$__rate_interval", "5m");
                if let Some(why) = wrong(&prometheus.query(&asked), legend) {
                    missed.push(format!("{} / {}: {query}: {why}", dashboard["title"], panel["title"]));
                }
                queries += 1;
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(queries > 60, "{queries} queries");

    // The rules, as Prometheus computes them.
    let rules = prometheus.get("/api/v1/rules", &[]).unwrap();
    let mut known = 0;
    for rule in
        rules["data"]["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap())
    {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            let name = rule["name"].as_str().unwrap();
            assert_eq!(wrong(&prometheus.query(name), ""), None, "{name}");
        }
        known += 1;
    }
    assert!(known > 25, "{known} rules");
    // Each fires after a minute or more, which this test does not last: what counts is whether one is true. These may
    // be, on a busy machine.
    let may_be = [
        "VoxgateTurnsSlow",
        "VoxgateUnderruns",
        "VoxgateFramesLate",
        "VoxgateWorkerStalled",
        "VoxgateCallersJitter",
    ];
    let mut raised = prometheus.query("ALERTS");
    raised.retain(|alert| may_be.iter().all(|name| alert["metric"]["alertname"] != *name));
    assert!(raised.is_empty(), "{raised:?}");
}

/// The unit in which a panel shows the answer to one of its queries.
fn unit_of<'a>(panel: &'a Value, target: &Value) -> &'a str {
    let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap();
    let own = overrides
        .iter()
        .find(|one| one["matcher"]["id"] == "byFrameRefID" && one["matcher"]["options"] == target["refId"]);
    let properties = own.into_iter().flat_map(|own| own["properties"].as_array().unwrap());
    let mut units = properties.filter(|property| property["id"] == "unit").map(|unit| &unit["value"]);
    units.next().unwrap_or(&panel["fieldConfig"]["defaults"]["unit"]).as_str().unwrap()
}

/// The units that suit what a query gives; none where its name does not tell.
fn units_of(query: &str) -> &'static [&'static str] {
    match () {
        () if query.contains(" / ") => &["percentunit"],
        () if query.contains("_seconds_bucket") => &["s"],
        () if query.contains("rate(") && query.contains("_bytes_total") => &["Bps"],
        () if query.contains("rate(") && query.contains("_cpu_seconds_total") => &["short"],
        () if query.contains("rate(") => &["ops", "cps", "reqps"],
        () if query.contains("_bytes{") => &["bytes"],
        () if query.contains("_seconds{") => &["s"],
        () => &[],
    }
}

#[test]
fn dashboards_keep_to_the_conventions() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let name = dashboard["title"].as_str().unwrap();
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}: its uid is taken");
        assert!(dashboard["id"].is_null(), "{name}: its id is for Grafana to choose");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name} / {title}: its id is taken");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name} / {title}: no unit");
            assert!(
                panel["description"].as_str().is_some_and(|d| !d.is_empty()),
                "{name} / {title}: no description"
            );
            // Provisioning resolves no inputs: the data source is a variable.
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name} / {title}");
            let is_heatmap = panel["type"] == "heatmap";
            for target in panel["targets"].as_array().unwrap() {
                let (unit, query) = (unit_of(panel, target), target["expr"].as_str().unwrap());
                let units = units_of(query);
                assert!(units.is_empty() || units.contains(&unit), "{name} / {title}: {query} in {unit}");
                assert_eq!(target["format"] == "heatmap", is_heatmap, "{name} / {title}");
            }
        }
    }
    assert_eq!(uids.len(), 3);
}

/// Runs promtool in the folder of the rules, with something to read.
fn promtool(args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program("promtool"))
        .args(args)
        .current_dir(project().join("grafana/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn promtool_has_nothing_to_say_against_metrics_and_rules() {
    let gateway = Gateway::start("");
    let metrics = gateway.admin_get("/metrics").1;
    for (args, input) in [
        (&["check", "metrics"][..], metrics.as_str()),
        (&["check", "config", "prometheus.yml"], ""),
        (&["check", "rules", "rules.yml", "alerts.yml"], ""),
        (&["test", "rules", "tests.yml"], ""),
    ] {
        let (well, said) = promtool(args, input);
        assert!(well, "promtool {}: {said}", args.join(" "));
    }
    // It would say so: a name in milliseconds.
    let (well, said) = promtool(&["check", "metrics"], "# HELP x_ms x\n# TYPE x_ms counter\nx_ms 1\n");
    assert!(!well, "{said}");
}
