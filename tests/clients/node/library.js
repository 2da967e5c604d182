// The npm server library `pusher`: every operation, its answers, and what the server says to a bad request.
import { createRequire } from "node:module";
import { equal, holds, until } from "./check.js";
import { events, record } from "./journey.js";
import { disabled, host, library, main, other, port } from "./target.js";

const Client = createRequire(import.meta.url)("pusher-js");
const pusher = library();
const clients = [];

export async function connect(credentials = main) {
  const owner = library(credentials);
  const client = new Client(credentials.key, {
    cluster: "test", wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ["ws"], enableStats: false,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, channelName.startsWith("presence-")
        ? owner.authorizeChannel(socketId, channelName, { user_id: client.userId })
        : owner.authorizeChannel(socketId, channelName)),
    },
  });
  clients.push(client);
  await until("the connection", () => client.connection.state === "connected");
  return client;
}

export async function subscribe(client, name) {
  const channel = client.subscribe(name);
  record(channel);
  await until(`the subscription to ${name}`, () => channel.subscribed);
  return channel;
}

const json = async (response) => (await response).json();

/** The status and text with which the server refuses; fails when it does not. */
async function refusal(response) {
  try {
    await response;
  } catch (error) {
    return { status: error.status, text: String(error.body) };
  }
  throw new Error("the request was accepted");
}

async function refuses(response, status, text) {
  const answer = await refusal(response);
  equal(answer.status, status, "status");
  holds(text.test(answer.text), `the server says: ${answer.text}`);
}

export default async function npmPusher(check) {
  const that = (sentence, body) => check.that(`npm pusher: ${sentence}`, body);
  const client = await connect();
  client.userId = "7";

  await that("triggers one channel and is answered with an empty object", async () => {
    const channel = await subscribe(client, "lib-one");
    equal(await json(pusher.trigger("lib-one", "hello", { a: 1 })), {}, "answer");
    await until("the event", () => events(channel, "hello").length === 1);
  });

  await that("triggers a hundred channels at once, each delivered once", async () => {
    const names = [...Array(100).keys()].map((i) => `lib-many-${i}`);
    const channels = [];
    for (const name of names) channels.push(await subscribe(client, name));
    equal(await json(pusher.trigger(names, "all", { a: 1 })), {}, "answer");
    await until("a hundred events", () => channels.every((channel) => events(channel, "all").length === 1));
    for (const name of names) client.unsubscribe(name);
  });

  await that("is refused more than a hundred channels", () =>
    refuses(pusher.post({ path: "/events", body: { name: "e", data: "", channels: [...Array(101).keys()].map((i) => `c${i}`) } }), 400, /100|channels/));

  await that("delivers once when a channel is named twice", async () => {
    const channel = await subscribe(client, "lib-twice");
    await pusher.trigger(["lib-twice", "lib-twice"], "once", {});
    await pusher.trigger("lib-twice", "fence", {});
    await until("the fence", () => events(channel, "fence").length === 1);
    equal(events(channel, "once").length, 1, "deliveries");
  });

  await that("gets counts with a trigger that asks for them", async () => {
    await subscribe(client, "presence-lib-info");
    await subscribe(client, "lib-info");
    const channels = ["presence-lib-info", "lib-info", "lib-info-empty"];
    equal(await json(pusher.trigger(channels, "e", {}, { info: "user_count,subscription_count" })), {
      channels: {
        "presence-lib-info": { user_count: 1, subscription_count: 1 },
        "lib-info": { subscription_count: 1 },
        "lib-info-empty": { subscription_count: 0 },
      },
    }, "answer");
  });

  await that("triggers a batch in order and gets counts where an event asked", async () => {
    const channel = await subscribe(client, "lib-batch");
    const batch = [...Array(10).keys()].map((i) => ({ channel: "lib-batch", name: "step", data: { i } }));
    equal(await json(pusher.triggerBatch(batch)), {}, "answer");
    await until("ten events", () => events(channel, "step").length === 10);
    equal(events(channel, "step").map(({ i }) => i), [...Array(10).keys()], "order");
    const asked = [{ channel: "lib-batch", name: "e", data: "x", info: "subscription_count" }, { channel: "lib-none", name: "e", data: "x" }];
    equal(await json(pusher.triggerBatch(asked)), { batch: [{ subscription_count: 1 }, {}] }, "answer with info");
  });

  await that("is refused a batch of eleven, and a batch with one bad event as a whole", async () => {
    const channel = await subscribe(client, "lib-batch");
    await refuses(pusher.triggerBatch(Array(11).fill({ channel: "lib-batch", name: "extra", data: "x" })), 400, /Batch too large/);
    await refuses(pusher.triggerBatch([{ channel: "lib-batch", name: "extra", data: "x" }, { channel: "no spaces", name: "e", data: "x" }]), 400, /channel/i);
    await pusher.trigger("lib-batch", "fence", {});
    await until("the fence", () => events(channel, "fence").length === 1);
    equal(events(channel, "extra"), [], "events of refused batches");
  });

  await that("lists occupied channels, by prefix and with user counts", async () => {
    const all = await json(pusher.get({ path: "/channels" }));
    equal([all.channels["lib-one"], all.channels["lib-info-empty"]], [{}, undefined], "channels");
    const filtered = await json(pusher.get({ path: "/channels", params: { filter_by_prefix: "presence-lib-", info: "user_count" } }));
    equal(filtered, { channels: { "presence-lib-info": { user_count: 1 } } }, "filtered");
    equal(await json(pusher.get({ path: "/channels", params: { filter_by_prefix: "nobody-is-here-" } })), { channels: {} }, "none");
    await refuses(pusher.get({ path: "/channels", params: { info: "user_count" } }), 400, /user_count may only be requested for presence channels/);
  });

  await that("reads one channel, occupied or not, and its cache", async () => {
    equal(await json(pusher.get({ path: "/channels/presence-lib-info", params: { info: "user_count,subscription_count" } })),
      { occupied: true, user_count: 1, subscription_count: 1 }, "presence");
    equal(await json(pusher.get({ path: "/channels/lib-nobody" })), { occupied: false }, "unknown");
    equal(await json(pusher.get({ path: "/channels/cache-lib", params: { info: "cache" } })), { occupied: false, cache: null }, "empty cache");
    await pusher.trigger("cache-lib", "state", { on: true });
    const { cache } = await json(pusher.get({ path: "/channels/cache-lib", params: { info: "cache" } }));
    equal(cache.data, '{"on":true}', "cached data");
    holds(cache.ttl > 1700 && cache.ttl <= 1800, `ttl is ${cache.ttl}`);
    await refuses(pusher.get({ path: "/channels/lib-one", params: { info: "user_count" } }), 400, /presence/);
  });

  await that("lists the users of a presence channel with ids as text", async () => {
    equal(await json(pusher.get({ path: "/channels/presence-lib-info/users" })), { users: [{ id: "7" }] }, "users");
    equal(await json(pusher.get({ path: "/channels/presence-lib-nobody/users" })), { users: [] }, "nobody");
    await refuses(pusher.get({ path: "/channels/lib-one/users" }), 400, /presence/i);
  });

  await that("terminates a user who is not there without an error", async () => {
    equal(await json(pusher.terminateUserConnections("nobody-of-this-name")), {}, "answer");
  });

  await that("is refused the reserved namespace, a bad channel and a bad socket id", async () => {
    await refuses(pusher.trigger("lib-one", "pusher_internal:member_added", {}), 400, /namespace is reserved/);
    const event = { name: "e", data: "x", channels: ["lib-one"] };
    await refuses(pusher.post({ path: "/events", body: { ...event, channels: ["with space"] } }), 400, /Invalid channel name/);
    await refuses(pusher.post({ path: "/events", body: { ...event, socket_id: "1.2:x" } }), 400, /socket/i);
    await refuses(pusher.post({ path: "/events", body: { ...event, name: undefined } }), 400, /Expected name parameter to be a string/);
  });

  await that("is refused data over 10240 bytes with 413, and allowed exactly 10240", async () => {
    equal(await json(pusher.trigger("lib-one", "big", "x".repeat(10_240))), {}, "answer at the limit");
    await refuses(pusher.trigger("lib-one", "big", "x".repeat(10_241)), 413, /exceeds the allowed maximum \(10240 bytes\)/);
  });

  await that("is told that its secret is wrong without learning the right digest", async () => {
    const path = "/channels/lib-one";
    const answer = await refusal(library({ ...main, secret: "not the secret" }).get({ path }));
    equal(answer.status, 401, "status");
    holds(/Invalid signature/.test(answer.text), `the server says: ${answer.text}`);
    const sent = new URLSearchParams(pusher.createSignedQueryString({ method: "GET", path: `/apps/${main.appId}${path}`, params: {} }));
    holds(!answer.text.includes(sent.get("auth_signature")) && !answer.text.includes(main.secret), "the answer reveals what it must not");
  });

  await that("is told that its key is unknown, its app is unknown, or its app is disabled", async () => {
    await refuses(library({ ...main, key: "unknown" }).get({ path: "/channels" }), 401, /Unknown auth_key/);
    await refuses(library({ ...main, appId: "999999" }).get({ path: "/channels" }), 404, /./);
    await refuses(library({ ...main, appId: other.appId }).get({ path: "/channels" }), 401, /Unknown auth_key/);
    await refuses(library(disabled).trigger("a", "e", {}), 403, /./);
  });

  await that("keeps two apps apart that use the same channel name", async () => {
    const stranger = await connect(other);
    stranger.userId = "8";
    const [mine, theirs] = [await subscribe(client, "presence-shared"), await subscribe(stranger, "presence-shared")];
    await pusher.trigger("presence-shared", "mine", {});
    await library(other).trigger("presence-shared", "theirs", {});
    await until("both events", () => events(mine, "mine").length === 1 && events(theirs, "theirs").length === 1);
    equal([events(mine, "theirs").length, events(theirs, "mine").length, mine.members.count, theirs.members.count], [0, 0, 1, 1], "what crossed");
    equal(await json(library(other).get({ path: "/channels" })), { channels: { "presence-shared": {} } }, "channels of the other app");
  });

  for (const each of clients) each.disconnect();
}
