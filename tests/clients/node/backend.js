// The customer's side: authorizes channels and users and triggers events with the official server library.
// Browser pages and Node clients reach it over HTTP, as they would in production.
import { createServer } from "node:http";
import { once } from "node:events";
import { createReadStream, readFileSync } from "node:fs";
import { extname, join, normalize } from "node:path";
import { library, main } from "./target.js";

const root = import.meta.dirname;

/** Where the vendor's CDN keeps the parts that pusher-js loads by itself, `/8.6.0/sockjs.js`, and where npm put them. */
const cdn = Object.fromEntries(
  ["pusher-js", "pusher-js-4"].map((name) => {
    const { version } = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8"));
    return [version, `/node_modules/${name}/dist/web`];
  }),
);
const types = { ".js": "text/javascript", ".html": "text/html" };
const cors = { "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*" };

/** What the server library may be asked to do by a page, each answering JSON. */
const calls = {
  trigger: async (pusher, args) => (await pusher.trigger(...args)).json(),
  triggerBatch: async (pusher, args) => (await pusher.triggerBatch(...args)).json(),
  sendToUser: async (pusher, args) => (await pusher.sendToUser(...args)).json(),
  terminateUserConnections: async (pusher, args) => (await pusher.terminateUserConnections(...args)).json(),
  get: async (pusher, args) => (await pusher.get(...args)).json(),
};

/** Starts the backend of an app on a free port and returns its base URL. */
export async function startBackend(credentials = main) {
  const pusher = library(credentials);
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://backend");
    const answer = (status, value) => {
      response.writeHead(status, { ...cors, "Content-Type": "application/json" });
      response.end(JSON.stringify(value));
    };
    try {
      if (request.method === "OPTIONS") return response.writeHead(204, cors).end();
      if (request.method === "GET") return file(url.pathname, response);
      const body = await text(request);
      if (url.pathname === "/channel-auth") return channelAuth(pusher, new URLSearchParams(body), answer);
      if (url.pathname === "/user-auth") return userAuth(pusher, new URLSearchParams(body), answer);
      return answer(200, await calls[url.pathname.slice("/call/".length)](pusher, JSON.parse(body)));
    } catch (error) {
      return answer(500, { message: error.message, status: error.status, body: error.body });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => { server.closeAllConnections(); server.close(); } };
}

function channelAuth(pusher, form, answer) {
  const [socketId, channel] = [form.get("socket_id"), form.get("channel_name")];
  const user = { user_id: form.get("user_id"), user_info: { name: form.get("user_name") } };
  // Who signed in needs no `channel_data`: the identity is that of the sign-in.
  const auth = channel.startsWith("presence-") && !channel.endsWith("-by-sign-in")
    ? pusher.authorizeChannel(socketId, channel, user)
    : pusher.authorizeChannel(socketId, channel);
  if (channel.includes("forged")) auth.auth = auth.auth.replace(/.{8}$/, "00000000");
  return answer(200, auth);
}

function userAuth(pusher, form, answer) {
  const user = { id: form.get("user_id"), user_info: { name: form.get("user_name") } };
  if (form.get("watchlist")) user.watchlist = form.get("watchlist").split(",");
  return answer(200, pusher.authenticateUser(form.get("socket_id"), user));
}

function file(path, response) {
  const [, version, name] = /^\/([\d.]+)\/(\w+\.js)$/.exec(path) ?? [];
  const stream = createReadStream(join(root, normalize(version in cdn ? `${cdn[version]}/${name}` : path)));
  stream.on("error", () => response.writeHead(404).end());
  stream.on("open", () => {
    response.writeHead(200, { ...cors, "Content-Type": types[extname(path)] ?? "application/octet-stream" });
    stream.pipe(response);
  });
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
