// The customer's side of webhooks: takes every request and remembers it as it came.
import { once } from "node:events";
import { createServer } from "node:http";
import { until } from "./check.js";
import { receiver } from "./target.js";

/** The events of one channel, sorted, and without the counts, of which there are more or fewer. */
export const news = (events, channel) => events
  .filter((event) => event.channel === channel && event.name !== "subscription_count")
  .sort((a, b) => `${a.name} ${a.user_id}`.localeCompare(`${b.name} ${b.user_id}`));

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
    const distinct = new Map(requests.map((request) => [request.path + request.headers["webhook-id"], request]));
    return [...distinct.values()].filter((request) => request.path === path && request.body.includes(`"${channel}"`));
  };

  return {
    /** The requests of that endpoint about that channel, once they hold so many events besides counts. */
    about: async (path, channel, count) => {
      const events = () => told(path, channel).flatMap(({ body }) => news(JSON.parse(body).events, channel));
      await until(`${count} events of ${channel} at ${path}`, () => events().length >= count);
      return told(path, channel);
    },
    /** Waits until the endpoint has been told of such an event. */
    seen: (path, channel, name) => until(`${name} of ${channel} at ${path}`, () => told(path, channel).some(({ body }) => body.includes(`"${name}"`))),
    stop: () => { server.closeAllConnections(); server.close(); },
  };
}
