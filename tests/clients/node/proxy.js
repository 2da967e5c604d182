// A TCP proxy whose connections break when the test wants it.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Starts a proxy in front of `host:port` on a free port. */
export async function startProxy(host, port) {
  const pairs = new Set();
  let budget = Infinity;
  let isOpen = true;
  const server = createServer((client) => {
    if (!isOpen) return client.destroy();
    const upstream = connect(port, host);
    const pair = [client, upstream];
    const end = () => {
      pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    pairs.add(pair);
    for (const socket of pair) socket.on("error", end).on("close", end);
    client.pipe(upstream);
    upstream.on("data", (bytes) => {
      const part = bytes.subarray(0, budget);
      budget -= part.length;
      if (part.length < bytes.length) {
        budget = Infinity;
        client.end(part, end);
      } else if (!client.write(part)) {
        upstream.pause();
        client.once("drain", () => upstream.resume());
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => {
    for (const sockets of pairs) for (const socket of sockets) socket.destroy();
  };
  return {
    port: server.address().port,
    /** Breaks every connection now. */
    cut,
    /** Breaks the connection once this many more bytes have come from the server, wherever in a frame that is. */
    cutAfter: (bytes) => (budget = bytes),
    /** Breaks every connection and lets none in until `open`. */
    close: () => {
      isOpen = false;
      cut();
    },
    open: () => (isOpen = true),
    stop: () => {
      cut();
      server.close();
    },
  };
}
