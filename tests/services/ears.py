"""Streaming recognition for the fakes of streaming recognisers: telephone audio goes in as it is
said, the guess at what is being said and its end come out.

While somebody speaks, a streaming decoder guesses. What is final is recognised anew from the whole
utterance, as stt_server does, so that it is exact with the grammar and the voice of the tests.
"""

import numpy as np
from pocketsphinx import Config, Decoder, get_model_path

from stt_server import GRAMMAR, Recogniser, to_model_rate

RATE = 8_000
STEP = RATE // 50  # 20 ms
LOUD = 200  # RMS of speech, at least
PREROLL = RATE * 3 // 10
GUESS_EVERY = RATE // 4


class Model:
    """What all connections share; one guess at a time."""

    def __init__(self):
        self.recogniser = Recogniser()
        config = Config(
            hmm=get_model_path("en-us/en-us"),
            dict=get_model_path("en-us/cmudict-en-us.dict"),
            jsgf=GRAMMAR,
            lm=None,
            loglevel="FATAL",
        )
        self._guessing = Decoder(config)

    def text(self, pcm):
        return self.recogniser.text(to_model_rate(pcm, RATE)) if len(pcm) else ""

    def guess(self, pcm):
        decoder = self._guessing
        decoder.start_utt()
        decoder.process_raw(to_model_rate(pcm, RATE).tobytes(), no_search=False, full_utt=False)
        best = decoder.hyp()
        decoder.end_utt()
        return best.hypstr if best else ""


class Ears:
    """Hears one connection. All places are samples since it began."""

    def __init__(self, model, silence):
        self._model = model
        self._silence = silence  # samples of it that end an utterance; None for never
        self._audio = np.zeros(0, np.int16)
        self._start = 0  # the place of the first sample that is kept
        self._looked = 0
        self._speech = None  # where the utterance begins
        self._guessed = 0
        self.last_voice = None

    @property
    def heard(self):
        return self._start + len(self._audio)

    def hear(self, pcm):
        """Yields ("guess", text, from, until) and ("end", text, from, until)."""
        self._audio = np.concatenate((self._audio, pcm))
        while self._looked + STEP <= self.heard:
            frame = self._cut(self._looked, self._looked + STEP).astype(np.float64)
            self._looked += STEP
            if np.sqrt(np.mean(frame**2)) >= LOUD:
                self.last_voice = self._looked
                if self._speech is None:
                    self._speech = max(self._start, self._looked - STEP - PREROLL)
                    self._guessed = self._looked
            if self._speech is None:
                self._drop(self._looked - PREROLL)
            elif self._silence and self._looked - self.last_voice >= self._silence:
                yield ("end", *self.settle(self._looked))
            elif self._looked - self._guessed >= GUESS_EVERY:
                self._guessed = self._looked
                text = self._model.guess(self._cut(self._speech, self._looked))
                yield ("guess", text, self._speech, self._looked)

    def settle(self, until=None):
        """What the utterance said, or whatever there was instead; the next one begins behind it."""
        until = self.heard if until is None else until
        begin = self._start if self._speech is None else self._speech
        text = "" if self._speech is None else self._model.text(self._cut(begin, until))
        self._speech = None
        self._looked = until
        self._drop(until)
        return text, begin, until

    def _cut(self, begin, end):
        return self._audio[begin - self._start : end - self._start]

    def _drop(self, before):
        gone = max(0, before - self._start)
        self._audio = self._audio[gone:]
        self._start += gone
