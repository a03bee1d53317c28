"""What calls cost, and how exact they stay: `calls.py [--calls 1,100,500,1000] [--seconds 20] [--servers …]`.

Each server in turn gets core 0 and each number of calls in turn; the caller, `voxgate call`, and the speech
services have core 1. What is printed is CPU per call-second, memory per call and lateness as the caller sees it;
JSON lines of the same go to target/calls.jsonl, and `--svg FOLDER` draws them (matplotlib, from
benches/peers/requirements.txt; `--drawn` draws the last run's again). Build first:

    cargo build --release --bin voxgate --example floor

Servers: echo, dialogue and relay are voxgate's modes, each followed by its floor: `benches/peers/floor.rs` with as
many messages. interrupted is a dialogue whose callers speak into the reply, and what counts is how soon the
carrier is told to clear what it has (espeak-ng). idle is a dialogue that nobody speaks in, for its memory, without
huge pages and behind a few calls that pay for what is made once, and leave some memory: what a call takes is the
difference of two numbers of them. flask and pipecat are what people use without
voxgate (benches/peers/requirements.txt); they get ten calls, and as many as they can carry is less than a hundred.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import wave

ROOT = pathlib.Path(__file__).parent.parent
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
VOXGATE, FLOOR, PEERS = BUILT / "voxgate", BUILT / "examples/floor", ROOT / "benches/peers"
PORT, ADMIN, SERVICES, BOT = 9601, 9602, 9603, 9604
MEDIA = f"ws://127.0.0.1:{PORT}/ws/twilio-media"
# The reply that makes the bot speak half of the time, to an utterance of the built-in sound.
REPLY_SECONDS = 2
PEER_CALLS = 10
# Spoken into a reply after so many milliseconds of it.
INTERRUPTION, AFTER_MS = "No, stop. I meant Tuesday, not Monday.", 700

COMMON = f"""
[server]
listen = "127.0.0.1:{PORT}"
threads = 1
[admin]
listen = "127.0.0.1:{ADMIN}"
[log]
format = "json"
"""
DIALOGUE = f"""
[turn]
dedup_window_sec = 0
[dialogue]
mode = "dialogue"
[dialogue.stt]
url = "http://127.0.0.1:{SERVICES}/stt"
[dialogue.agent]
url = "http://127.0.0.1:{SERVICES}/agent"
[dialogue.tts]
url = "http://127.0.0.1:{SERVICES}/tts"
"""
RELAY = f"""
[dialogue]
mode = "relay"
[dialogue.bot]
url = "ws://127.0.0.1:{BOT}/media"
"""


@contextlib.contextmanager
def running(core, *command, **more):
    """A process on one core, that is gone afterwards."""
    command = ["taskset", "-c", str(core), *map(str, command)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def listening(port):
    """Waits until somebody listens there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


@contextlib.contextmanager
def voxgate(keys, **more):
    """The gateway with this configuration."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "gateway.toml"
        config.write_text(COMMON + keys)
        with running(0, VOXGATE, "run", "--config", config, **more) as process:
            listening(PORT)
            yield process


@contextlib.contextmanager
def floor(kind, talk):
    with running(0, FLOOR, kind, PORT, f"{talk:.3f}") as process:
        listening(PORT)
        yield process


@contextlib.contextmanager
def dialogue(**more):
    with running(1, FLOOR, "services", SERVICES, REPLY_SECONDS):
        listening(SERVICES)
        with voxgate(DIALOGUE, **more) as process:
            time.sleep(1)  # What is always said is fetched in the beginning.
            yield process


@contextlib.contextmanager
def relay():
    with running(1, FLOOR, "epoll", BOT, 0.5):
        listening(BOT)
        with voxgate(RELAY) as process:
            yield process


@contextlib.contextmanager
def peer(script):
    with running(0, sys.executable, PEERS / script, PORT) as process:
        listening(PORT)
        yield process


def call(process, calls, seconds, *more):
    """Makes the calls, and tells what they cost the process."""
    command = ["taskset", "-c", "1", VOXGATE, "call", MEDIA, "--calls", calls, "--duration", f"{seconds}s"]
    command += ["--ramp", f"{max(1, calls // 100)}s", "--timeout", "5s", "--json", "--pid", process.pid]
    command += more
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if not told.stdout:
        sys.exit(told.stderr)
    return json.loads(told.stdout)


def row(server, calls, told):
    """The figures of one run."""
    cost, late, own = told["gateway"], told["lateness_ms"] or {}, told["own_lateness_ms"]
    clear = told["barge_in"]["clear_ms"] or {}
    return {
        "server": server,
        "calls": calls,
        "served": told["served"],
        "cpu_ms": cost["cpu_ms_per_call_second"],
        "kib": cost["rss_kib_per_call"],
        "messages_in": told["frames_out"],
        "messages_out": told["frames_in"],
        "lateness_ms": [late.get(p) for p in ("p50", "p99", "p999")],
        "clear_ms": [clear.get(p) for p in ("p50", "p99")],
        "caller_late_ms": own["p99"],
        "underruns": told["underruns"],
    }


def measure(servers, numbers, seconds):
    modes = {"echo": lambda: voxgate(""), "dialogue": dialogue, "relay": relay}
    peers = {"flask": "flask_eventlet.py", "pipecat": "pipecat_echo.py"}
    for server in servers:
        if server in peers:
            with peer(peers[server]) as process:
                yield row(server, PEER_CALLS, call(process, PEER_CALLS, seconds))
            continue
        if server in WITHOUT_FLOOR:
            yield from WITHOUT_FLOOR[server](numbers, seconds)
            continue
        for calls in numbers:
            with modes[server]() as process:
                mine = row(server, calls, call(process, calls, seconds))
            yield mine
            for kind in ("epoll", "tungstenite"):
                # As many messages to the caller for each of the caller's.
                with floor(kind, mine["messages_out"] / mine["messages_in"]) as process:
                    below = row(f"{server}: {kind}", calls, call(process, calls, seconds))
                below["times_this"] = mine["cpu_ms"] / max(below["cpu_ms"], 0.001)
                yield below


def interrupted(numbers, seconds):
    with tempfile.TemporaryDirectory() as folder:
        said = pathlib.Path(folder) / "said.wav"
        subprocess.run(["espeak-ng", "-w", said, INTERRUPTION], check=True)
        for calls in numbers:
            with dialogue() as process:
                told = call(process, calls, seconds, "--interrupt", f"{said}@{AFTER_MS}")
            yield row("interrupted", calls, told)


def idle(numbers, seconds):
    with tempfile.TemporaryDirectory() as folder:
        silence = pathlib.Path(folder) / "silence.wav"
        with wave.open(str(silence), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(2 * 8000 * seconds))
        for calls in numbers:
            with dialogue(env=os.environ | {"MIMALLOC_ALLOW_THP": "0"}) as process:
                call(process, 20, 2)
                yield row("idle", calls, call(process, calls, seconds, "--say", silence))


WITHOUT_FLOOR = {"interrupted": interrupted, "idle": idle}


def draw(rows, folder):
    """Cost and lateness over the number of calls."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    voxgate = ("echo", "dialogue", "relay")
    everybody = [row["server"] for row in rows if row["server"] not in WITHOUT_FLOOR]
    for name, label, servers, value in [
        ("cost", "CPU, ms per second of a call", everybody, lambda row: row["cpu_ms"]),
        ("lateness", "frames later than ideal, p99, ms", voxgate, lambda row: row["lateness_ms"][1]),
        ("memory", "memory, KiB a call", voxgate, lambda row: row["kib"]),
    ]:
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for server in dict.fromkeys(row["server"] for row in rows):
            if server not in servers:
                continue
            points = [(row["calls"], value(row)) for row in rows if row["server"] == server]
            points = [point for point in points if point[1] is not None]
            style = "--" if ":" in server else "-"
            axes.plot(*zip(*points), style, marker="o", label=server)
        if name == "lateness":
            own = {row["calls"]: row["caller_late_ms"] for row in rows if row["server"] == "dialogue"}
            axes.plot(own.keys(), own.values(), ":", color="grey", label="the caller's own (dialogue)")
        axes.set(xlabel="calls at once, one core", ylabel=label, xscale="log", ylim=(0, None))
        if name in ("cost", "memory"):
            axes.set(yscale="log", ylim=(0.1 if name == "cost" else 10, None))
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("--calls", type=numbers, default=[1, 10, 100, 300, 600, 1000])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["echo", "dialogue", "relay", "interrupted"])
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--drawn", action="store_true")
    args = parser.parse_args()
    written = BUILT.parent / "calls.jsonl"
    if args.drawn:
        return draw([json.loads(line) for line in written.read_text().splitlines()], args.svg)
    rows = []
    head = ("server", "calls", "served", "CPU ms/s", "KiB", "late p50", "p99", "p99.9", "caller p99", "clear p50", "p99", "× floor")
    print(("{:<24}" + "{:>11}" * 11).format(*head), flush=True)
    for told in measure(args.servers, args.calls, args.seconds):
        rows.append(told)
        figures = [told["cpu_ms"], told["kib"], *told["lateness_ms"], told["caller_late_ms"], *told["clear_ms"]]
        figures.append(told.get("times_this"))
        figures = ["" if figure is None else f"{figure:.2f}" for figure in figures]
        print(("{:<24}" + "{:>11}" * 11).format(told["server"], told["calls"], told["served"], *figures), flush=True)
    written.write_text("".join(json.dumps(told) + "\n" for told in rows))
    if args.svg:
        draw(rows, args.svg)


if __name__ == "__main__":
    main()
