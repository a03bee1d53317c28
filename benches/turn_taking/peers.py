"""What another detector of speech says of a corpus, for the table of `cargo bench --bench turn_taking`.

    python peers.py silero|webrtc DIR

Standard output gets little-endian 32-bit floats: first what a frame of 20 ms cost, in microseconds,
then the probability of speech of each frame, clips in the manifest's order. What is not installed is
named on standard error, with how to install it, and the exit code is 3.
"""
import importlib.util
import json
import os
import struct
import sys
import time

FRAME = 160


def missing(why):
    print(why, file=sys.stderr)
    sys.exit(3)


def linear(code):
    """A byte of mu-law as a 16-bit sample."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 132 << ((code >> 4) & 7)) - 132
    return -magnitude if code & 0x80 else magnitude


LINEAR = [linear(code) for code in range(256)]


def samples(path):
    with open(path, "rb") as file:
        wav = file.read()
    at = wav.index(b"data") + 8
    audio = wav[at:at + struct.unpack_from("<I", wav, at - 4)[0]]
    return [LINEAR[code] for code in audio[:len(audio) // FRAME * FRAME]]


def silero():
    """Silero at 16 kHz, as Pipecat runs it: windows of 512 samples behind 64 of the one before."""
    try:
        import numpy as np
        import onnxruntime as ort
    except ImportError as why:
        missing(f"{why.name} is not installed: pip install onnxruntime numpy silero-vad")
    places = [("pipecat", "audio/vad/data/silero_vad.onnx"), ("silero_vad", "data/silero_vad.onnx")]
    # Found, not imported: the package silero-vad asks for torch, which its model does not need.
    found = [(importlib.util.find_spec(name), file) for name, file in places]
    models = [os.path.join(spec.submodule_search_locations[0], file) for spec, file in found if spec]
    model = next(filter(os.path.exists, models), None)
    if model is None:
        missing("no silero_vad.onnx: pip install --no-deps silero-vad (or pipecat-ai)")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options)
    window, context, rate = 512, 64, np.array(16_000, np.int64)

    def hear(pcm):
        line = np.array(pcm, np.float32) / 32_768
        line = np.interp(np.arange(2 * len(line)) / 2, np.arange(len(line)), line).astype(np.float32)
        state, before, told = np.zeros((2, 1, 128), np.float32), np.zeros(context, np.float32), []
        for at in range(0, len(line) - window + 1, window):
            now = line[at:at + window]
            inputs = {"input": np.concatenate([before, now])[None], "state": state, "sr": rate}
            p, state = session.run(None, inputs)
            before = now[-context:]
            told.append(float(p[0, 0]))
        # A frame is told what the last window that was complete by then said.
        ends = (((n + 1) * 2 * FRAME) // window for n in range(len(pcm) // FRAME))
        return [told[end - 1] if end else 0.0 for end in ends]

    return hear


def webrtc():
    """WebRTC's, in its strictest mode, by frames of 20 ms."""
    try:
        import webrtcvad
    except ImportError as why:
        missing(f"{why.name} is not installed: pip install webrtcvad 'setuptools<81'")

    def hear(pcm):
        vad = webrtcvad.Vad(3)
        frames = (pcm[at:at + FRAME] for at in range(0, len(pcm), FRAME))
        return [float(vad.is_speech(struct.pack(f"<{FRAME}h", *frame), 8_000)) for frame in frames]

    return hear


def main():
    name, folder = sys.argv[1:]
    hear = {"silero": silero, "webrtc": webrtc}[name]()
    with open(os.path.join(folder, "manifest.json")) as file:
        clips = json.load(file)["clips"]
    told, spent = [], 0.0
    for clip in clips:
        pcm = samples(os.path.join(folder, clip["file"]))
        started = time.perf_counter()
        told += hear(pcm)
        spent += time.perf_counter() - started
    cost = spent * 1e6 / max(1, len(told))
    sys.stdout.buffer.write(struct.pack(f"<{1 + len(told)}f", cost, *told))


if __name__ == "__main__":
    main()
