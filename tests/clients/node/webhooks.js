// What the server tells a receiver, judged by the npm libraries `pusher` and `standardwebhooks`, which know nothing of Dunlin.
import { Webhook } from "standardwebhooks";
import { equal, holds } from "./check.js";
import { connect, subscribe } from "./library.js";
import { news, startReceiver } from "./receiver.js";
import { library, receiver as endpoint, told } from "./target.js";

const pusher = library(told);
const whsec = (text) => `whsec_${Buffer.from(text).toString("base64")}`;
const flip = (character) => (character === "0" ? "1" : "0");
/** The text with one byte of it changed, the last one or the one before `index`. */
const changed = (text, index = text.length) => text.slice(0, index - 1) + flip(text[index - 1]) + text.slice(index);
/** The body with one letter of a channel's name changed, so that it is JSON as before. */
const changedBody = (body, channel) => changed(body, body.indexOf(channel) + channel.length);

const read = ({ headers, body }, by = pusher) => by.webhook({ headers, rawBody: body });
const verify = (secret, { headers, body }) => new Webhook(secret).verify(body, headers);

function refuses(what, request, secret) {
  let isRefused = false;
  try {
    verify(secret, request);
  } catch (error) {
    isRefused = /signature/i.test(error.message);
  }
  holds(isRefused, `${what} is accepted`);
}

/** Two users come and go, and one of them sends something. Returns what a receiver has to be told, sorted. */
async function happen(channel, receiver) {
  const [ann, bob] = [await connect(told), await connect(told)];
  [ann.userId, bob.userId] = ["10", "11"];
  const mine = await subscribe(ann, channel);
  await subscribe(bob, channel);
  mine.trigger("client-typing", { at: 3 });
  const socketId = ann.connection.socket_id;
  await receiver.seen("/app-secret", channel, "client_event");
  bob.unsubscribe(channel);
  await receiver.seen("/app-secret", channel, "member_removed");
  ann.disconnect();
  bob.disconnect();
  return [
    { name: "channel_occupied", channel },
    { name: "channel_vacated", channel },
    { name: "client_event", channel, event: "client-typing", data: '{"at":3}', socket_id: socketId, user_id: "10" },
    { name: "member_added", channel, user_id: "10" },
    { name: "member_added", channel, user_id: "11" },
    { name: "member_removed", channel, user_id: "10" },
    { name: "member_removed", channel, user_id: "11" },
  ];
}

export default async function webhooks(check) {
  const receiver = await startReceiver();
  const channel = `presence-hooks-${Date.now().toString(36)}`;
  let expected;
  let ofApp = [];
  let ofEndpoint = [];

  await check.that("webhooks: both endpoints are told when a channel is vacated", async () => {
    expected = await happen(channel, receiver);
    ofApp = await receiver.about("/app-secret", channel, expected.length);
    ofEndpoint = await receiver.about("/own-secret", channel, expected.length);
  });

  await check.that("npm pusher: takes every webhook for valid and reads its events and its time", async () => {
    for (const requests of [ofApp, ofEndpoint]) {
      const webhooks = requests.map((request) => read(request));
      equal([...new Set(webhooks.map((webhook) => webhook.isValid()))], [true], "validity");
      equal(news(webhooks.flatMap((webhook) => webhook.getEvents()), channel), expected, "events");
      for (const webhook of webhooks) holds(Math.abs(webhook.getTime() - Date.now()) < 60_000, `the time is ${webhook.getTime()}`);
    }
  });

  await check.that("npm pusher: takes no webhook for valid whose body, signature or key is changed", async () => {
    holds(ofApp.length > 0, "there is no webhook");
    for (const { headers, body } of ofApp) {
      const alter = (name) => ({ body, headers: { ...headers, [name]: changed(headers[name]) } });
      const others = [{ headers, body: changedBody(body, channel) }, alter("x-pusher-signature"), alter("x-pusher-key")];
      equal(others.map((request) => read(request).isValid()), [false, false, false], "validity of body, signature and key");
      holds(!read({ headers, body }, library({ ...told, secret: "another" })).isValid(), "another secret is as good");
    }
  });

  await check.that("npm standardwebhooks: verifies with the app's secret where an endpoint has none", async () => {
    const events = ofApp.flatMap((request) => verify(whsec(told.secret), request).events);
    equal(news(events, channel), expected, "events");
    for (const request of ofApp) refuses("another secret", request, endpoint.secret);
  });

  await check.that("npm standardwebhooks: verifies with the endpoint's secret and with the one before it", async () => {
    for (const secret of [endpoint.secret, endpoint.previousSecret]) {
      equal(news(ofEndpoint.flatMap((request) => verify(secret, request).events), channel), expected, "events");
    }
    for (const request of ofEndpoint) refuses("the app's secret", request, whsec(told.secret));
  });

  await check.that("npm standardwebhooks: refuses what is changed", async () => {
    holds(ofEndpoint.length > 0, "there is no webhook");
    for (const { headers, body } of ofEndpoint) {
      const put = (name, value) => ({ body, headers: { ...headers, [name]: value } });
      // Any of the signatures would do, so that both of them have to be wrong.
      const signatures = headers["webhook-signature"].replace(/v1,(.)/g, (_, character) => `v1,${flip(character)}`);
      for (const secret of [endpoint.secret, endpoint.previousSecret]) {
        refuses("another body", { headers, body: changedBody(body, channel) }, secret);
        refuses("another id", put("webhook-id", changed(headers["webhook-id"])), secret);
        refuses("another time", put("webhook-timestamp", changed(headers["webhook-timestamp"])), secret);
        refuses("another signature", put("webhook-signature", signatures), secret);
      }
    }
  });

  receiver.stop();
}
