"""A Pipecat bot as its users write one for Twilio: `pipecat_bot.py PORT FOLDER`. FastAPI takes the
socket, Pipecat's own TwilioFrameSerializer speaks the protocol, a pipeline talks.

It says FOLDER/NAME.wav, where NAME is the custom parameter `say`, with a mark behind it; stops when
the caller talks into that, which the serializer tells by `clear`; at # it says goodbye.wav and ends.
GET /log lists the calls, GET /heard is what the last caller said.
"""

import io
import json
import os
import sys
import wave

import numpy
import uvicorn
from fastapi import FastAPI, Response, WebSocket
from loguru import logger
from parent_watch import end_with_parent
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    EndWorkerFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

FOLDER = sys.argv[2]
RATE = 8_000
calls = []
app = FastAPI()


class Serializer(TwilioFrameSerializer):
    """Pipecat's, which is silent about marks and `stop`: what it is told is written down."""

    def __init__(self, told, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.told = told

    async def deserialize(self, data):
        message = json.loads(data)
        if self.told["events"][-1:] != [message["event"]]:
            self.told["events"].append(message["event"])
        if message["event"] == "mark":
            self.told["marks"].append(message["mark"]["name"])
        return await super().deserialize(data)


class Talk(FrameProcessor):
    def __init__(self, told, stream_sid, say):
        super().__init__()
        self.told, self.stream_sid, self.opening = told, stream_sid, say
        self.loud, self.interrupted = 0, False

    async def say(self, name):
        with wave.open(os.path.join(FOLDER, f"{name}.wav")) as wav:
            audio = wav.readframes(wav.getnframes())
        await self.push_frame(OutputAudioRawFrame(audio, RATE, 1))
        mark = {"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}}
        await self.push_frame(OutputTransportMessageFrame(message=mark))

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if self.opening:
                opening, self.opening = self.opening, None
                await self.say(opening)
            self.told["heard"] += frame.audio
            samples = numpy.frombuffer(frame.audio, numpy.int16).astype(float)
            self.loud = self.loud + 1 if numpy.sqrt((samples**2).mean()) > 1_000 else 0
            if self.loud == 5 and not self.told["marks"] and not self.interrupted:
                self.interrupted = True
                await self.broadcast_interruption()
        elif isinstance(frame, InputDTMFFrame) and frame.button == KeypadEntry.POUND:
            await self.say("goodbye")
            await self.push_frame(EndWorkerFrame())
        else:
            await self.push_frame(frame, direction)


@app.websocket("/media")
async def media(websocket: WebSocket):
    await websocket.accept()
    kind, call = await parse_telephony_websocket(websocket)
    told = {"kind": kind, "call": call.call_id, "parameters": call.body, "heard": bytearray()}
    told |= {"events": ["connected", "start"], "marks": [], "ended": False}
    calls.append(told)
    serializer = Serializer(
        told,
        stream_sid=call.stream_id,
        call_sid=call.call_id,
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer),
    )
    talk = Talk(told, call.stream_id, call.body["say"])
    worker = PipelineWorker(
        Pipeline([transport.input(), talk, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def gone(_transport, _client):
        await worker.cancel()

    await WorkerRunner(handle_sigint=False).run(worker)
    told["ended"] = True


@app.get("/log")
def log():
    return [{name: told[name] for name in told if name != "heard"} for told in calls]


@app.get("/heard")
def heard():
    out = io.BytesIO()
    with wave.open(out, "wb") as wav:
        wav.setparams((1, 2, RATE, 0, "NONE", ""))
        wav.writeframes(bytes(calls[-1]["heard"]))
    return Response(out.getvalue(), media_type="audio/wav")


@app.on_event("startup")
def ready():
    print("ready", flush=True)


if __name__ == "__main__":
    end_with_parent()
    logger.remove()
    if os.environ.get("BOT_LOG"):
        logger.add(sys.stderr)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
