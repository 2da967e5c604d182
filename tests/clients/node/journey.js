// What a client application does, from connecting to signing out, over one transport of one version of pusher-js.
// Runs in Node and in a browser page; everything on the customer's server goes through the backend.
import { equal, holds, until } from "./check.js";

/** Calls one method of the official server library that the backend holds. */
export async function callBackend(backend, method, ...args) {
  const response = await fetch(`${backend}/call/${method}`, { method: "POST", body: JSON.stringify(args) });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${method}: ${answer.message} ${answer.status ?? ""} ${answer.body ?? ""}`);
  return answer;
}

/**
 * @param target.Pusher     the client library's class
 * @param target.version    its major version: 4 knows no sign-in and no subscription count
 * @param target.decrypts   whether this build of it can open encrypted channels
 * @param target.transport  the only transport it may use
 * @param target.label     what else tells this journey from others
 * @param target.host, target.port, target.key   the server under test
 * @param target.backend    base URL of the backend
 */
export async function journey(check, target) {
  const label = `pusher-js ${target.version} ${target.transport}${target.label ?? ""}`;
  // Channel names of this journey's own: what another one left in a cache channel must not matter.
  const tag = `v${target.version}-${target.transport}-${Date.now().toString(36)}`.replaceAll("_", "-");
  const clients = [];
  const call = (method, ...args) => callBackend(target.backend, method, ...args);
  const that = (sentence, body) => check.that(`${label}: ${sentence}`, body);

  const connect = (user, key = target.key) => {
    const client = new target.Pusher(key, options(target, user));
    client.errors = [];
    client.connection.bind("error", (error) => client.errors.push(error));
    clients.push(client);
    return client;
  };
  const connected = async (user) => {
    const client = connect(user);
    await until("the connection", () => client.connection.state === "connected");
    return client;
  };
  const subscribed = async (client, name) => {
    const channel = client.subscribe(name);
    record(channel);
    await until(`the subscription to ${name}`, () => channel.subscribed);
    return channel;
  };
  /** Returns once everything sent to `client` before has arrived: an event through a channel of its own. */
  const fence = async (client) => {
    const channel = await subscribed(client, `${tag}-fence-${clients.indexOf(client)}`);
    const before = events(channel, "fence").length;
    await call("trigger", channel.name, "fence", {});
    await until("the fence", () => events(channel, "fence").length > before);
  };

  let ann, bob;
  await that("connects with the one transport it may use", async () => {
    ann = await connected({ id: "ann", name: "Ann" });
    bob = await connected({ id: "bob", name: "Bob" });
    holds(/^\d+\.\d+$/.test(ann.connection.socket_id), `socket id is ${ann.connection.socket_id}`);
    holds(ann.connection.socket_id !== bob.connection.socket_id, "two connections share a socket id");
    equal(ann.connection.connection.transport.name, target.transport, "transport");
  });
  if (bob?.connection.state !== "connected") {
    for (const client of clients) client.disconnect();
    return; // one failure has said it
  }

  await that("receives what is published on a public channel, byte for byte and in order", async () => {
    const [mine, theirs] = [await subscribed(ann, `${tag}-public`), await subscribed(bob, `${tag}-public`)];
    const awkward = { text: "grüße \u2028 \"quoted\" \\ 🦤", number: 1.5, nested: [null, { a: [] }] };
    await call("trigger", mine.name, "first", awkward);
    await call("trigger", mine.name, "text", "plain text, no JSON");
    for (let i = 0; i < 20; i += 1) await call("trigger", mine.name, "counted", { i });
    for (const channel of [mine, theirs]) {
      await until("twenty events", () => events(channel, "counted").length >= 20);
      equal(events(channel, "counted").map((data) => data.i), [...Array(20).keys()], "order");
      equal(events(channel, "first"), [awkward], "payload");
      equal(events(channel, "text"), ["plain text, no JSON"], "text payload");
    }
  });

  await that("receives a large event of ten thousand bytes", async () => {
    const channel = await subscribed(ann, `${tag}-public`);
    await call("trigger", channel.name, "large", "x".repeat(10_000));
    const [data] = await until("the large event", () => events(channel, "large").length && events(channel, "large"));
    equal(data.length, 10_000, "length");
  });

  await that("receives 400 kB on one connection without losing an event", async () => {
    // More than xhr_streaming reads from one response: the client then opens the next on the same session. What is on
    // the way at that moment it throws away, so that every event is followed by a round trip before the next.
    const channel = await subscribed(ann, `${tag}-flood`);
    const socketId = ann.connection.socket_id;
    for (let i = 0; i < 44; i += 1) {
      await call("trigger", channel.name, "flood", `${i}:${"x".repeat(9_000)}`);
      await until(`event ${i}`, () => events(channel, "flood").length > i);
      await subscribed(ann, `${channel.name}-${i}`);
    }
    equal(events(channel, "flood").map((text) => parseInt(text)), [...Array(44).keys()], "order");
    equal(ann.connection.socket_id, socketId, "socket id");
  });

  await that("is left out when the publisher excludes its socket id", async () => {
    const [mine, theirs] = [await subscribed(ann, `${tag}-public`), await subscribed(bob, `${tag}-public`)];
    await call("trigger", mine.name, "excluded", {}, { socket_id: ann.connection.socket_id });
    await until("the event at the other client", () => events(theirs, "excluded").length === 1);
    await fence(ann);
    equal(events(mine, "excluded"), [], "events at the excluded client");
  });

  await that("receives nothing after it unsubscribed, and again after it subscribed anew", async () => {
    const name = `${tag}-left`;
    const [mine, theirs] = [await subscribed(ann, name), await subscribed(bob, name)];
    ann.unsubscribe(name);
    await fence(ann);
    await call("trigger", name, "late", {});
    await until("the event at the other client", () => events(theirs, "late").length === 1);
    await fence(ann);
    equal(events(mine, "late"), [], "events after unsubscribing");
    const again = await subscribed(ann, name);
    await call("trigger", name, "back", {});
    await until("the event after subscribing anew", () => events(again, "back").length === 1);
  });

  await that("exchanges client events on a private channel and hears no echo", async () => {
    const name = `private-${tag}`;
    const [mine, theirs] = [await subscribed(ann, name), await subscribed(bob, name)];
    await call("trigger", name, "secret", { for: "members" });
    await until("the event", () => events(mine, "secret").length === 1 && events(theirs, "secret").length === 1);
    mine.trigger("client-typing", { who: "ann", deep: [1, { two: 2 }] });
    await until("the client event", () => events(theirs, "client-typing").length === 1);
    equal(events(theirs, "client-typing"), [{ who: "ann", deep: [1, { two: 2 }] }], "client event");
    await fence(ann);
    equal(events(mine, "client-typing"), [], "echo");
  });

  await that("is refused a client event on a public channel and stays connected", async () => {
    const [mine, theirs] = [await subscribed(ann, `${tag}-public`), await subscribed(bob, `${tag}-public`)];
    const before = ann.errors.length;
    mine.trigger("client-shout", {});
    const error = await until("the error", () => ann.errors.slice(before).find((e) => message(e)));
    holds(/client event/i.test(message(error)), `the error says: ${message(error)}`);
    await fence(ann);
    await fence(bob);
    equal(events(theirs, "client-shout"), [], "client events on the public channel");
    equal(ann.connection.state, "connected", "state");
  });

  await that("sees users, not connections, on a presence channel", async () => {
    const name = `presence-${tag}`;
    const mine = await subscribed(ann, name);
    equal([mine.members.count, mine.members.me.id, mine.members.me.info], [1, "ann", { name: "Ann" }], "own membership");
    const theirs = await subscribed(bob, name);
    await until("member_added", () => events(mine, "pusher:member_added").length === 1);
    equal(events(mine, "pusher:member_added"), [{ id: "bob", info: { name: "Bob" } }], "member_added");
    equal(Object.keys(theirs.members.members).sort(), ["ann", "bob"], "members seen by the second user");

    const secondTab = await connected({ id: "bob", name: "Bob" });
    const tab = await subscribed(secondTab, name);
    equal([tab.members.count, tab.members.me.id], [2, "bob"], "members seen by the second tab");
    let sender;
    mine.bind("client-wave", (_, metadata) => (sender = metadata?.user_id));
    theirs.trigger("client-wave", { user_id: "forged" });
    await until("the client event", () => events(mine, "client-wave").length === 1);
    equal(sender, "bob", "user id of the client event");
    await until("the client event at the sender's other tab", () => events(tab, "client-wave").length === 1);

    bob.unsubscribe(name);
    await fence(bob);
    await fence(ann);
    equal(events(mine, "pusher:member_added").length, 1, "member_added for two tabs");
    equal(events(mine, "pusher:member_removed"), [], "member_removed while a tab is open");
    equal(await call("get", { path: `/channels/${name}/users` }), { users: [{ id: "ann" }, { id: "bob" }] }, "users");
    secondTab.disconnect();
    await until("member_removed", () => events(mine, "pusher:member_removed").length === 1);
    equal(events(mine, "pusher:member_removed")[0].id, "bob", "member_removed");
    equal(mine.members.count, 1, "members left");
  });

  if (target.decrypts) await that("decrypts an encrypted channel that the server cannot read", async () => {
    const channel = await subscribed(ann, `private-encrypted-${tag}`);
    await call("trigger", channel.name, "sealed", { open: "sesame" });
    await until("the decrypted event", () => events(channel, "sealed").length === 1);
    equal(events(channel, "sealed"), [{ open: "sesame" }], "decrypted event");
  });

  for (const prefix of ["cache-", "private-cache-", "presence-cache-", "private-encrypted-cache-"]) {
    if (prefix.includes("encrypted") && !target.decrypts) continue;
    await that(`misses, then finds the last event of a ${prefix} channel`, async () => {
      const name = `${prefix}${tag}`;
      const mine = await subscribed(ann, name);
      await until("the cache miss", () => events(mine, "pusher:cache_miss").length === 1);
      await call("trigger", name, "state", { turn: 1 });
      await call("trigger", name, "state", { turn: 2 });
      await until("the events", () => events(mine, "state").length === 2);
      ann.unsubscribe(name);
      const theirs = await subscribed(bob, name);
      await until("the cached event", () => events(theirs, "state").length === 1);
      equal(events(theirs, "state"), [{ turn: 2 }], "cached event");
      equal(events(theirs, "pusher:cache_miss"), [], "cache miss with a filled cache");
    });
  }

  await that("learns that a forged signature was refused, on the channel and on the connection", async () => {
    const before = ann.errors.length;
    const channel = ann.subscribe(`private-${tag}-forged`);
    record(channel);
    const [error] = await until("the refusal", () => events(channel, "pusher:subscription_error").length && events(channel, "pusher:subscription_error"));
    equal([error.type, error.status], ["AuthError", 401], "subscription error");
    holds(error.error.includes("Invalid signature"), `the error says: ${error.error}`);
    await until("the connection's error", () => ann.errors.slice(before).some((e) => /Invalid signature/.test(message(e) ?? "")));
    holds(!channel.subscribed, "subscribed with a forged signature");
    equal(ann.connection.state, "connected", "state");
  });

  await that("gives up after an unknown key, with code 4001", async () => {
    const stranger = connect({}, `${target.key}-unknown`);
    await until("the refusal", () => ["disconnected", "failed"].includes(stranger.connection.state));
    holds(stranger.errors.some((error) => code(error) === 4001), `errors: ${JSON.stringify(stranger.errors)}`);
  });

  if (target.version >= 8) await current(that, { tag, call, connected, subscribed, ann, bob });
  for (const client of clients) client.disconnect();
}

/** What only the current client knows: counts, sign-in, user events, watchlists. */
async function current(that, { tag, call, connected, subscribed, ann, bob }) {
  await that("is told the subscription count of a channel as it grows and shrinks", async () => {
    const name = `${tag}-counted`;
    const mine = await subscribed(ann, name);
    const last = () => events(mine, "pusher:subscription_count").at(-1)?.subscription_count;
    await until("a count of one", () => last() === 1);
    await subscribed(bob, name);
    await until("a count of two", () => last() === 2);
    equal(mine.subscriptionCount, 2, "the channel's own count");
    bob.unsubscribe(name);
    await until("a count of one again", () => last() === 1);
  });

  await that("signs in, is reached as a user on every connection, and is terminated", async () => {
    const user = { id: `${tag}-carol`, name: "Carol" };
    const carols = [await connected(user), await connected(user)];
    const seen = [];
    for (const [index, carol] of carols.entries()) {
      carol.signin();
      carol.user.bind("mail", (data) => seen.push([index, data]));
      await carol.user.signinDonePromise;
      equal(carol.user.user_data?.id, user.id, "signed in as");
      await until("the user's channel", () => carol.user.serverToUserChannel?.subscribed);
    }
    await call("sendToUser", user.id, "mail", { subject: "hi" });
    await until("the event on both connections", () => seen.length === 2);
    equal(seen.sort(), [[0, { subject: "hi" }], [1, { subject: "hi" }]], "user events");
    const channel = await subscribed(carols[0], `presence-${tag}-by-sign-in`);
    equal([channel.members.me.id, channel.members.me.info], [user.id, { name: "Carol" }], "presence identity by sign-in");

    await call("terminateUserConnections", user.id);
    await until("the end of both", () => carols.every((carol) => carol.connection.state === "disconnected"));
    for (const carol of carols) holds(carol.errors.some((e) => code(e) === 4009), `errors: ${JSON.stringify(carol.errors)}`);
  });

  await that("watches other users come online and go offline", async () => {
    const watched = { id: `${tag}-dave`, name: "Dave" };
    const watcher = await connected({ id: `${tag}-eve`, name: "Eve", watchlist: [watched.id] });
    const seen = [];
    watcher.user.watchlist.bind("online", (event) => seen.push(["online", event.user_ids]));
    watcher.user.watchlist.bind("offline", (event) => seen.push(["offline", event.user_ids]));
    watcher.signin();
    await until("the state at sign-in", () => seen.length === 1);
    const dave = await connected(watched);
    dave.signin();
    await until("online", () => seen.length === 2);
    dave.disconnect();
    await until("offline", () => seen.length === 3);
    equal(seen, [["offline", [watched.id]], ["online", [watched.id]], ["offline", [watched.id]]], "watchlist events");
  });
}

function options(target, user) {
  const params = { user_id: user.id ?? "", user_name: user.name ?? "", watchlist: (user.watchlist ?? []).join(",") };
  const where = {
    cluster: "test",
    wsHost: target.host,
    wsPort: target.port,
    httpHost: target.host,
    httpPort: target.port,
    enabledTransports: [target.transport],
    forceTLS: false,
  };
  if (target.version < 8) {
    return { ...where, disableStats: true, authEndpoint: `${target.backend}/channel-auth`, auth: { params } };
  }
  return {
    ...where,
    enableStats: false,
    channelAuthorization: { transport: "ajax", endpoint: `${target.backend}/channel-auth`, params },
    userAuthentication: { transport: "ajax", endpoint: `${target.backend}/user-auth`, params },
  };
}

/** Remembers every event of a channel, once per channel object. */
export function record(channel) {
  if (channel.recorded) return;
  channel.recorded = [];
  channel.bind_global((name, data) => channel.recorded.push([name, data]));
}

export function events(channel, name) {
  return channel.recorded.filter(([event]) => event === name).map(([, data]) => data);
}

/** Versions differ in how deep a `pusher:error` lies in what they report. */
function payload(error) {
  return error?.error?.data ?? error?.data ?? error;
}
const code = (error) => payload(error)?.code;
const message = (error) => payload(error)?.message;
