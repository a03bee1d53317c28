// Opens a media stream as Twilio does, with Node's `ws`, and says how it was received.
//
//     node handshake.mjs URL [--offer PROTOCOL]… [--deflate] [--seconds S]
//
// Prints one JSON line: opened, status, protocol, extensions, the messages received, how it closed.
// With --deflate it offers permessage-deflate, as `ws` does unless told not to. Exits 0 if opened.

import { parseArgs } from "node:util";
import WebSocket from "ws";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    offer: { type: "string", multiple: true, default: [] },
    deflate: { type: "boolean", default: false },
    seconds: { type: "string", default: "0.3" },
  },
});

const callSid = "CA" + "1".repeat(32);
const streamSid = "MZ" + "2".repeat(32);
const opening = [
  { event: "connected", protocol: "Call", version: "1.0.0" },
  {
    event: "start",
    sequenceNumber: "1",
    start: {
      accountSid: "AC" + "3".repeat(32),
      streamSid,
      callSid,
      tracks: ["inbound"],
      mediaFormat: { encoding: "audio/x-mulaw", sampleRate: 8000, channels: 1 },
      customParameters: { call_sid: callSid },
    },
    streamSid,
  },
];

const seen = { opened: false, status: null, protocol: null, extensions: null };
const messages = [];
const finish = (more) => {
  console.log(JSON.stringify({ ...seen, ...more }));
  process.exit(seen.opened ? 0 : 1);
};

const ws = new WebSocket(positionals[0], values.offer, {
  perMessageDeflate: values.deflate,
  handshakeTimeout: 5000,
  headers: { "User-Agent": "Twilio.TmeWs/1.0" },
});
ws.on("upgrade", (response) => {
  seen.status = response.statusCode;
  seen.extensions = response.headers["sec-websocket-extensions"] ?? null;
});
ws.on("open", () => {
  seen.opened = true;
  seen.protocol = ws.protocol || null;
  for (const message of opening) ws.send(JSON.stringify(message));
  setTimeout(() => ws.close(1000), Number(values.seconds) * 1000);
});
ws.on("message", (data) => messages.push(data.toString()));
ws.on("close", (code) => {
  finish({ received: messages.length, first: messages[0] ?? null, close_code: code });
});
ws.on("unexpected-response", (_, response) => {
  const parts = [];
  seen.status = response.statusCode;
  response.on("data", (part) => parts.push(part));
  response.on("end", () => finish({ body: Buffer.concat(parts).toString().slice(0, 500) }));
});
ws.on("error", (error) => {
  if (!seen.opened) finish({ error: error.message });
});
