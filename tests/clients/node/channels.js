// pusher-js in Node: the current version and a 4.x, each over every transport it has there, alone.
import { createRequire } from "node:module";
import { startBackend } from "./backend.js";
import { journey } from "./journey.js";
import { host, main, port } from "./target.js";

const require = createRequire(import.meta.url);
const clients = [
  { version: 8, Pusher: require("pusher-js"), decrypts: true },
  // In Node, 4.x asks for a browser's `navigator` before it opens an encrypted channel; in Chromium it is tested with one.
  { version: 4, Pusher: require("pusher-js-4"), decrypts: false },
];

export default async function channels(check) {
  const backend = await startBackend();
  for (const client of clients) {
    for (const transport of ["ws", "xhr_streaming", "xhr_polling"]) {
      await journey(check, { ...client, transport, host, port, key: main.key, backend: backend.url });
    }
  }
  backend.stop();
}
