// The customer's side of webhooks: takes every request and remembers it as it came.
import { once } from "node:events";
import { createServer } from "node:http";
import { until } from "./check.js";
import { receiver } from "./target.js";

export async function startReceiver() {
  const requests = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    requests.push({ path: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() });
    response.writeHead(204).end();
  });
  server.listen(receiver.port, "127.0.0.1");
  await once(server, "listening");

  /** What one endpoint was told of one channel; what comes again counts once. */
  const told = (path, channel) => {
    const once = new Map(requests.map((request) => [request.path + request.headers["webhook-id"], request]));
    return [...once.values()].filter((request) => request.path === path && request.body.includes(`"${channel}"`));
  };

  return {
    /** The requests of that endpoint about that channel, once the channel is known to be vacated. */
    all: async (path, channel) => {
      const isVacated = ({ body }) => JSON.parse(body).events.some((event) => event.name === "channel_vacated" && event.channel === channel);
      await until(`the end of ${channel} at ${path}`, () => told(path, channel).some(isVacated));
      return told(path, channel);
    },
    /** Waits until the endpoint has been told of such an event. */
    seen: (path, channel, name) => until(`${name} of ${channel} at ${path}`, () => told(path, channel).some(({ body }) => body.includes(`"${name}"`))),
    stop: () => { server.closeAllConnections(); server.close(); },
  };
}
