// Clients for `cargo xtask chaos recovery`, which cuts their connections at random: unmodified pusher-js with our helper.
// Prints what happens to them, one JSON object per line, until it is killed.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Server from "pusher";
import { recover } from "../../../sdk/javascript/recovery.js";

const require = createRequire(import.meta.url);
const Pusher = require("pusher-js");
const { version } = JSON.parse(readFileSync(new URL("node_modules/pusher-js/package.json", import.meta.url), "utf8"));

const { DUNLIN_TEST_HOST: host, DUNLIN_TEST_APP_KEY: key, DUNLIN_TEST_APP_SECRET: secret } = process.env;
const port = Number(process.env.DUNLIN_TEST_PORT);
const server = new Server({ appId: process.env.DUNLIN_TEST_APP_ID, key, secret });
/** What the load generator puts in front of the number of an event. */
const STAMP = /^~dunlin~(\d{10})\./;

const say = (what, details) => console.log(JSON.stringify({ what, ...details }));

say("version", { version });
for (let client = 0; client < Number(process.env.DUNLIN_TEST_CLIENTS); client += 1) {
  const pusher = new Pusher(key, {
    cluster: "test", wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ["ws"], enableStats: false,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, server.authorizeChannel(socketId, channelName)),
    },
  });
  recover(pusher, { onGap: (channel) => say("lost", { client, channel }) });
  pusher.connection.bind("connected", () => say("connected", { client }));
  pusher.connection.bind("message", ({ event, data }) => {
    if (event === "pusher_internal:recovered" && data.recovered === true) say("recovered", { client });
  });
  for (const channel of process.env.DUNLIN_TEST_CHANNELS.split(",")) {
    pusher.subscribe(channel)
      .bind("pusher:subscription_succeeded", () => say("subscribed", { client, channel }))
      .bind("bench", (data) => say("event", { client, channel, id: Number(STAMP.exec(data)?.[1] ?? NaN) }));
  }
}
