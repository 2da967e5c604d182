// laravel-echo in Node, with its `pusher` and its `reverb` broadcaster.
import { createRequire } from "node:module";
import Echo from "laravel-echo";
import { startBackend } from "./backend.js";
import { equal, holds, until } from "./check.js";
import { callBackend } from "./journey.js";
import { host, main, port } from "./target.js";

const Pusher = createRequire(import.meta.url)("pusher-js");
export default async function echo(check) {
  await conversation(check, "laravel-echo", main);
}

/** What a client application does with laravel-echo, in this app. */
export async function conversation(check, label, credentials) {
  const backend = await startBackend(credentials);
  const call = (method, ...args) => callBackend(backend.url, method, ...args);

  for (const broadcaster of ["pusher", "reverb"]) {
    const that = (sentence, body) => check.that(`${label} ${broadcaster}: ${sentence}`, body);
    const start = (id, name) => new Echo({
      broadcaster, Pusher, key: credentials.key, cluster: "test", wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ["ws"],
      authEndpoint: `${backend.url}/channel-auth`, auth: { params: { user_id: id, user_name: name } },
    });
    const [ann, bob] = [start("ann", "Ann"), start("bob", "Bob")];
    const ready = (channel) => new Promise((resolve, reject) => channel.subscribed(resolve).error((e) => reject(new Error(JSON.stringify(e)))));

    await that("listens to a broadcast event on a public channel, in its namespace", async () => {
      const seen = [];
      const channel = ann.channel(`${broadcaster}-orders`).listen("OrderShipped", (e) => seen.push(e)).listen(".custom", (e) => seen.push(e));
      await ready(channel);
      await call("trigger", `${broadcaster}-orders`, "App\\Events\\OrderShipped", { id: 1 });
      await call("trigger", `${broadcaster}-orders`, "custom", { id: 2 });
      await until("both events", () => seen.length === 2);
      equal(seen, [{ id: 1 }, { id: 2 }], "events");
      holds(/^\d+\.\d+$/.test(ann.socketId()), `socket id is ${ann.socketId()}`);
    });

    await that("whispers and is notified on a private channel", async () => {
      const seen = [];
      const [mine, theirs] = [ann.private(`${broadcaster}-room`), bob.private(`${broadcaster}-room`)];
      theirs.listenForWhisper("typing", (e) => seen.push(["whisper", e])).notification((e) => seen.push(["notification", e]));
      await Promise.all([ready(mine), ready(theirs)]);
      mine.whisper("typing", { name: "Ann" });
      await until("the whisper", () => seen.length === 1);
      await call("trigger", `private-${broadcaster}-room`, "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated", { type: "paid" });
      await until("the notification", () => seen.length === 2);
      equal(seen, [["whisper", { name: "Ann" }], ["notification", { type: "paid" }]], "what arrived");
    });

    await that("knows who is here, joining and leaving", async () => {
      const [here, joining, leaving] = [[], [], []];
      const mine = ann.join(`${broadcaster}-lobby`).here((m) => here.push(m)).joining((m) => joining.push(m)).leaving((m) => leaving.push(m));
      await ready(mine);
      equal(here, [[{ name: "Ann" }]], "here");
      await ready(bob.join(`${broadcaster}-lobby`));
      await until("joining", () => joining.length === 1);
      bob.leave(`${broadcaster}-lobby`);
      await until("leaving", () => leaving.length === 1);
      equal([joining, leaving], [[{ name: "Bob" }], [{ name: "Bob" }]], "joining and leaving");
    });

    await that("reads an encrypted private channel", async () => {
      const seen = [];
      const channel = ann.encryptedPrivate(`${broadcaster}-vault`).listen(".opened", (e) => seen.push(e));
      await ready(channel);
      await call("trigger", `private-encrypted-${broadcaster}-vault`, "opened", { by: "Ann" });
      await until("the event", () => seen.length === 1);
      equal(seen, [{ by: "Ann" }], "event");
    });

    await that("reports a refused subscription to error()", async () => {
      const errors = [];
      ann.private(`${broadcaster}-forged`).error((e) => errors.push(e));
      await until("the error", () => errors.length === 1);
      equal([errors[0].type, errors[0].status], ["AuthError", 401], "error");
    });

    for (const echo of [ann, bob]) echo.disconnect();
  }
  backend.stop();
}
