"""Watches gateways while `soak.sh` loads them, and judges: `soak.py FOLDER MINUTES NAME=PID:PORT…`.

A line every ten seconds into FOLDER/samples.csv: memory, descriptors, threads and calls of each gateway. After
MINUTES it makes FOLDER/enough, by which the load ends, waits until the last call has gone, and compares. Memory
rises and falls with the calls, so what is fitted over the second half is both: so much a call, and so much an hour.
Samples in a row resemble each other, an allocator gives back and takes over minutes: the fit is of their means over
two minutes, and its interval is as much wider as those still resemble each other.
"""

import csv
import glob
import json
import os
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy

EVERY = 10
BLOCK = 12
# Student's t for a two-sided 95 %, by degrees of freedom.
T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 15: 2.13, 20: 2.09, 30: 2.04}
FIELDS = ["seconds", "rss_kib", "fds", "threads", "calls"]


class Gateway:
    def __init__(self, word):
        self.name, rest = word.split("=")
        self.pid, port = rest.split(":")
        self.admin = f"http://127.0.0.1:{int(port) + 1}"
        self.samples = []

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def metrics(self):
        with urllib.request.urlopen(self.admin + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[:1] != "#"}

    def sample(self, since):
        status = dict(line.split(":", 1) for line in open(f"/proc/{self.pid}/status"))
        # Asked last: the question is a descriptor too, and is gone by the next one.
        row = [round(time.monotonic() - since), int(status["RssAnon"].split()[0]), self.fds(), int(status["Threads"])]
        self.samples.append(row + [int(self.metrics()["voxgate_calls_active"])])
        return self.samples[-1]


def slope(samples):
    """KiB an hour over the second half, the half width of its 95 % interval, KiB a call."""
    half = numpy.array(samples[len(samples) // 2 :], dtype=float)
    blocks = numpy.array([half[n : n + BLOCK].mean(axis=0) for n in range(0, len(half) - BLOCK + 1, BLOCK)])
    freedom = len(blocks) - 3
    if freedom < 1:
        return None
    design = numpy.column_stack([numpy.ones(len(blocks)), blocks[:, 0] / 3600, blocks[:, 4]])
    fit, *_ = numpy.linalg.lstsq(design, blocks[:, 1], rcond=None)
    rest = blocks[:, 1] - design @ fit
    spread = numpy.linalg.pinv(design.T @ design) * (rest @ rest / freedom)
    t = T[max(n for n in T if n <= freedom)]
    alike = min(max(rest[1:] @ rest[:-1] / (rest @ rest), 0), 0.9)
    return fit[1], t * (spread[1, 1] * (1 + alike) / (1 - alike)) ** 0.5, fit[2]


def accounted(gateway, folder):
    """What became of the calls, by the log and by the metrics; they have to agree."""
    begun, ended = 0, Counter()
    problems = Counter()
    for line in open(folder / f"{gateway.name}.log"):
        event = json.loads(line)
        begun += event.get("message") == "WS_START"
        # Of a stream that was no call yet it is a warning.
        if event.get("message") == "WS_STOP" and event.get("level") == "INFO":
            ended[event["reason"]] += 1
        if event.get("level") in ("WARN", "ERROR"):
            problems[f"{event['level']} {event['message']} {event.get('kind', '')}"] += 1
    counted = {
        name.split('"')[1]: int(value)
        for name, value in gateway.metrics().items()
        if name.startswith("voxgate_calls_total{") and value
    }
    return begun, ended, counted, problems


def main(folder, minutes, words):
    gateways = [Gateway(word) for word in words]
    base = {gateway.name: gateway.fds() for gateway in gateways}
    print("descriptors before:", base, flush=True)
    begin, rows = time.monotonic(), open(folder / "samples.csv", "w", buffering=1)
    write = csv.writer(rows)
    write.writerow(["gateway", *FIELDS])
    while time.monotonic() - begin < minutes * 60:
        for gateway in gateways:
            write.writerow([gateway.name, *gateway.sample(begin)])
        time.sleep(EVERY)
    Path(folder / "enough").touch()
    fine = True
    for gateway in gateways:
        until = time.monotonic() + 120
        while gateway.metrics()["voxgate_calls_active"] and time.monotonic() < until:
            time.sleep(1)
        until = time.monotonic() + 60
        while gateway.fds() > base[gateway.name] and time.monotonic() < until:
            time.sleep(1)
        print(f"\n{gateway.name}:")
        left = gateway.sample(begin)
        begun, ended, counted, problems = accounted(gateway, folder)
        of_all = [max(sample[n] for sample in gateway.samples) for n in range(5)]
        mean = numpy.mean([sample[4] for sample in gateway.samples[:-1]])
        print(f"  calls: {begun} begun, {mean:.0f} at a time on average, {of_all[4]} at most; by reason {dict(ended)}")
        if sum(ended.values()) != begun or dict(ended) != counted:
            fine = False
            print(f"  NOT ACCOUNTED FOR: the metrics have {counted}")
        print(f"  descriptors: {base[gateway.name]} before, {of_all[2]} at most, {left[2]} after; threads {left[3]}")
        print(f"  memory: {of_all[1]} KiB at most, {left[1]} KiB after")
        fine &= left[2] <= base[gateway.name] and left[4] == 0
        fit = slope(gateway.samples[:-1])
        if fit is None:
            print("  slope: too short a run to tell")
        else:
            grows = " GROWS" if fit[0] > fit[1] else ""
            fine &= not grows
            print(f"  slope: {fit[0]:+.0f} ± {fit[1]:.0f} KiB an hour ({fit[2]:.0f} KiB a call){grows}")
        for what, times in problems.most_common(10):
            print(f"  log: {times} x {what}")
    crowds = [json.load(open(name)) for name in glob.glob(f"{folder}/calls-*.json") if os.path.getsize(name)]
    served, made = (sum(crowd[key] for crowd in crowds) for key in ("served", "calls"))
    print(f"\nclients: {served} of {made} calls that were not cut off were served")
    for problem, times in Counter(p for crowd in crowds for p in crowd["problems"]).most_common(5):
        print(f"  {times} x {problem}")
    print("PASS" if fine else "FAIL")
    return 0 if fine else 1


sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
