// A Node `ws` bot as people wrote one for Twilio: bot.mjs PORT FOLDER. All it has to say goes out in one
// message.
//
// It says FOLDER/NAME.wav, where NAME is the custom parameter `say`, with a mark behind it; sends `clear`
// when the caller talks into that; at # it says goodbye.wav and ends. GET /log lists the calls, GET /heard
// is what the last caller said.

import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { join } from "node:path";
import { WebSocketServer } from "ws";

const [port, folder] = process.argv.slice(2);
const calls = [];

const mulaw = (name) =>
  execFileSync("sox", ["-D", join(folder, `${name}.wav`), ..."-t raw -r 8000 -c 1 -e mu-law -".split(" ")]);

// Most samples are beyond 500 of 32,767: the three bits of the segment say so.
const isLoud = (payload) => payload.filter((byte) => ((~byte >> 4) & 7) >= 2).length > payload.length / 2;

const server = createServer((request, response) => {
  if (request.url === "/log") {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(calls.map(({ heard, ...told }) => told)));
  } else {
    response.setHeader("Content-Type", "audio/basic");
    response.end(Buffer.concat(calls.at(-1)?.heard ?? []));
  }
});

new WebSocketServer({ server, path: "/media" }).on("connection", (ws) => {
  const told = { events: [], marks: [], heard: [], ended: false };
  calls.push(told);
  let streamSid, loud = 0;
  const send = (message) => ws.send(JSON.stringify({ ...message, streamSid }));
  const say = (name) => {
    send({ event: "media", media: { payload: mulaw(name).toString("base64") } });
    send({ event: "mark", mark: { name } });
  };
  ws.on("message", (data) => {
    const message = JSON.parse(data);
    if (told.events.at(-1) !== message.event) told.events.push(message.event);
    switch (message.event) {
      case "connected":
        told.kind = message.protocol === "Call" ? "twilio" : message.protocol;
        break;
      case "start":
        streamSid = message.streamSid;
        told.call = message.start.callSid;
        told.parameters = message.start.customParameters;
        say(told.parameters.say);
        break;
      case "media": {
        const payload = Buffer.from(message.media.payload, "base64");
        told.heard.push(payload);
        loud = isLoud(payload) ? loud + 1 : 0;
        if (loud === 5 && told.marks.length === 0) send({ event: "clear" });
        break;
      }
      case "mark":
        told.marks.push(message.mark.name);
        break;
      case "dtmf":
        if (message.dtmf.digit === "#") {
          say("goodbye");
          ws.close(1000);
        }
        break;
    }
  });
  ws.on("close", () => {
    told.ended = true;
  });
});

// Gone with the test run, however that ends.
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(1), 200);
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
