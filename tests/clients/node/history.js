// Channels with history: clients that know nothing of it are not disturbed, and with `recovery.js` a stock pusher-js loses
// nothing and gets nothing twice, however often its connection breaks.
import { createRequire } from "node:module";
import { recover } from "../../../sdk/javascript/recovery.js";
import { startBackend } from "./backend.js";
import { equal, until } from "./check.js";
import { conversation } from "./echo.js";
import { events, journey, record } from "./journey.js";
import { startProxy } from "./proxy.js";
import { host, kept, library, port } from "./target.js";

const require = createRequire(import.meta.url);
const clients = [
  { version: 8, Pusher: require("pusher-js"), decrypts: true },
  { version: 4, Pusher: require("pusher-js-4"), decrypts: false },
];
const pusher = library(kept);
/** After how many bytes a connection breaks: between two frames, in their midst, and while what was missed is being sent. */
const breaks = [0, 1, 900, 2500, 0, 4000, 17, 12_000];

export default async function history(check) {
  const backend = await startBackend(kept);
  for (const client of clients) {
    for (const transport of ["ws", "xhr_streaming", "xhr_polling"]) {
      const label = ", on channels with history";
      await journey(check, { ...client, transport, label, host, port, key: kept.key, backend: backend.url });
    }
  }
  backend.stop();
  await conversation(check, "laravel-echo, on channels with history,", kept);
  await Promise.all(clients.map((client) => recovery(check, client)));
}

async function subscribed(client, name) {
  const channel = client.subscribe(name);
  record(channel);
  await until(`the subscription to ${name}`, () => channel.subscribed);
  return channel;
}

/** What the server answers to those who ask for the past, as it comes. */
function answers(client) {
  const seen = [];
  client.connection.bind("message", ({ event, data }) => {
    if (event === "pusher_internal:recovered" && data.recovered !== null) seen.push(data.recovered);
  });
  return seen;
}

/** Publishes on the channels while the client's connection is broken, after so many bytes each time or at once. */
async function interrupted(client, proxy, names, breaks) {
  const recovered = answers(client);
  const channels = [];
  for (const name of names) channels.push(await subscribed(client, name));
  const published = names.map(() => []);
  const received = () => channels.map((channel) => events(channel, "n"));
  let isOver = false;
  const publishing = (async () => {
    for (let n = 0; !isOver; n += 1) {
      await until("the client to catch up", () => isOver || received().every((seen, i) => published[i].length - seen.length < 300));
      const at = n % names.length;
      await pusher.trigger(names[at], "n", { n, filling: "x".repeat(n % 500) });
      published[at].push(n);
    }
  })();
  try {
    for (const bytes of breaks) {
      const [before, socketId] = [recovered.length, client.connection.socket_id];
      if (bytes) proxy.cutAfter(bytes);
      else proxy.cut();
      await until("another connection", () => client.connection.state === "connected" && client.connection.socket_id !== socketId);
      await until("what was missed", () => recovered.length >= before + names.length);
    }
  } finally {
    isOver = true;
    await publishing;
  }
  await until("the last event", () => received().every((seen, i) => seen.length >= published[i].length));
  equal(received().map((seen) => seen.map(({ n }) => n)), published, "what arrived");
  equal([client.gaps, recovered.includes(false)], [[], false], "gaps");
}

async function recovery(check, { version, Pusher }) {
  const that = (sentence, body) => check.that(`pusher-js ${version} with recovery.js: ${sentence}`, body);
  const proxy = await startProxy(host, port);
  const tag = `v${version}-${Date.now().toString(36)}`;
  const open = [];

  const start = (transport = "ws", { port } = proxy) => {
    const client = new Pusher(kept.key, {
      cluster: "test", wsHost: host, wsPort: port, httpHost: host, httpPort: port, forceTLS: false,
      enabledTransports: [transport], enableStats: false, disableStats: true,
      authorizer: ({ name }) => ({ authorize: (socketId, done) => done(version < 8 ? false : null, pusher.authorizeChannel(socketId, name)) }),
    });
    const gaps = [];
    open.push(client);
    return Object.assign(client, { gaps, recovery: recover(client, { onGap: (channel) => gaps.push(channel) }) });
  };
  // 4.x gives WebSocket up for good once two connections broke soon after they were opened: there it is one for each client.
  const cuts = version < 8 ? breaks.map((bytes) => [bytes]) : [breaks];
  await that("receives what was published, in order and once, while its connection breaks again and again", () =>
    Promise.all(cuts.map(async (bytes, i) => {
      const proxy = await startProxy(host, port);
      await interrupted(start("ws", proxy), proxy, [`${tag}-${i}`, `private-${tag}-${i}`], bytes);
      proxy.stop();
    })));

  await that("is not given its own events when it comes back", async () => {
    const [client, other] = [start(), start()];
    const name = `private-${tag}-own`;
    const [mine, theirs] = [await subscribed(client, name), await subscribed(other, name)];
    let isSkipped = false;
    client.connection.bind("message", ({ event, data }) => (isSkipped ||= event === "pusher_internal:position" && data.skipped));
    mine.trigger("client-x", { from: "me" });
    await until("the event at the other client", () => events(theirs, "client-x").length === 1);
    await until("its place", () => isSkipped);
    proxy.cut();
    await pusher.trigger(name, "after", {});
    await until("the event behind it", () => events(mine, "after").length === 1 && events(theirs, "after").length === 1);
    equal([events(mine, "client-x").length, events(theirs, "client-x").length], [0, 1], "own events");
  });

  await that("begins with the last events when it asks for them, connected already or not", async () => {
    for (const isConnected of [false, true]) {
      const name = `${tag}-rewind-${isConnected}`;
      for (let n = 0; n < 5; n += 1) await pusher.trigger(name, "n", n);
      const client = start();
      if (isConnected) await until("the connection", () => client.connection.state === "connected");
      client.recovery.rewind(name, 3);
      const channel = await subscribed(client, name);
      await pusher.trigger(name, "n", 5);
      await until("the next event", () => events(channel, "n").includes(5));
      equal([events(channel, "n"), client.gaps], [[2, 3, 4, 5], []], "events and gaps");
    }
  });

  await that("says so when what it missed is not to be had any more", async () => {
    const client = start();
    const name = `tiny-${tag}`;
    const channel = await subscribed(client, name);
    await pusher.trigger(name, "n", 0);
    await until("the first event", () => events(channel, "n").length === 1);
    proxy.close();
    await until("the end of the connection", () => client.connection.state !== "connected");
    for (let n = 1; n <= 10; n += 1) await pusher.trigger(name, "n", n);
    proxy.open();
    await until("the news", () => client.gaps.length > 0, 40_000);
    await pusher.trigger(name, "n", 11);
    await until("the next event", () => events(channel, "n").length > 1);
    equal([events(channel, "n"), client.gaps], [[0, 11], [name]], "events and gaps");
  });

  await that("asks nothing for a channel that it left", async () => {
    const client = start();
    const recovered = answers(client);
    const channel = await subscribed(client, `${tag}-left`);
    await subscribed(client, `${tag}-stayed`);
    await pusher.trigger(channel.name, "n", 0);
    await until("the event", () => events(channel, "n").length === 1);
    client.unsubscribe(channel.name);
    proxy.cut();
    await until("the answer for the other channel", () => recovered.length > 0, 40_000);
    const again = await subscribed(client, channel.name);
    await pusher.trigger(channel.name, "fence", {});
    await until("the fence", () => events(again, "fence").length === 1);
    equal([events(again, "n"), recovered, client.gaps], [[], [true], []], "events, answers and gaps");
  });

  await that("goes on over plain HTTP, or says that it cannot", async () => {
    const client = start("xhr_streaming");
    const channel = await subscribed(client, `${tag}-http`);
    const socketId = client.connection.socket_id;
    await pusher.trigger(channel.name, "n", 0);
    await until("the first event", () => events(channel, "n").length === 1);
    proxy.close();
    await until("the end of the connection", () => client.connection.state !== "connected", 60_000);
    await pusher.trigger(channel.name, "n", 1);
    proxy.open();
    await until("another connection", () => client.connection.state === "connected" && client.connection.socket_id !== socketId, 60_000);
    // Each message is a request of its own there: the subscription may overtake the question, whose answer then is no.
    await until("what was missed, or the news", () => events(channel, "n").length === 2 || client.gaps.length > 0);
    await pusher.trigger(channel.name, "n", 2);
    await until("the next event", () => events(channel, "n").includes(2));
    const expected = client.gaps.length ? [[0, 2], [channel.name]] : [[0, 1, 2], []];
    equal([events(channel, "n"), client.gaps], expected, "events and gaps");
  });

  for (const client of open) client.disconnect();
  proxy.stop();
}
