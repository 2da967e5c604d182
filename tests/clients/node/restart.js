// A server of this suite's own is told to stop and started anew; pusher-js comes back by itself.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { equal, holds, until } from "./check.js";
import { events, record } from "./journey.js";
import { host, library, main } from "./target.js";

const Pusher = createRequire(import.meta.url)("pusher-js");

export default async function restart(check) {
  const [port, metricsPort] = [await freePort(), await freePort()];
  let server = await start(port, metricsPort);

  await check.that("pusher-js 8 ws: is sent away with 4200 at a shutdown and comes back to the next server by itself", async () => {
    const client = new Pusher(main.key, {
      cluster: "test", wsHost: host, wsPort: port, forceTLS: false, enabledTransports: ["ws"], enableStats: false,
    });
    const codes = [];
    client.connection.bind("error", (error) => codes.push(error?.error?.data?.code ?? error?.data?.code));
    await until("the connection", () => client.connection.state === "connected");
    const before = client.connection.socket_id;
    const channel = client.subscribe("restart");
    record(channel);
    await until("the subscription", () => channel.subscribed);

    server.kill("SIGTERM");
    await until("the code 4200", () => codes.includes(4200));
    await until("the end of the server", () => server.exitCode !== null || server.signalCode !== null, 40_000);
    equal([server.exitCode, server.signalCode], [0, null], "exit code and signal");

    server = await start(port, metricsPort);
    await until("the new connection", () => client.connection.state === "connected", 40_000);
    holds(client.connection.socket_id !== before, "the socket id is the old one");
    await until("the new subscription", () => channel.subscribed);
    await library(main, { port }).trigger("restart", "again", { n: 1 });
    await until("the event", () => events(channel, "again").length === 1);
    client.disconnect();
  });
  server.kill("SIGKILL");
}

/** Starts the server under test and waits until it answers. It gets no variable that it does not know. */
async function start(port, metricsPort) {
  const server = spawn(process.env.DUNLIN_TEST_BINARY, ["serve"], {
    stdio: "ignore",
    cwd: process.env.DUNLIN_TEST_SCRATCH,
    env: {
      PATH: process.env.PATH,
      DUNLIN_CONFIG: process.env.DUNLIN_TEST_CONFIG,
      DUNLIN_HOST: host,
      DUNLIN_PORT: String(port),
      DUNLIN_METRICS_PORT: String(metricsPort),
    },
  });
  await until("the server", () => fetch(`http://${host}:${port}/ready`).then((answer) => answer.ok, () => false), 20_000);
  return server;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}
