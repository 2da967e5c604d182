// pusher-js in Chromium: the current version and a 4.x, each over every transport alone, SockJS among them.
// The page and its scripts come from the backend's port, so that every request to the server crosses origins.
import { startBackend } from "./backend.js";
import { withChromium } from "./chromium.js";
import { host, main, port } from "./target.js";

const clients = [
  { version: 8, script: "node_modules/pusher-js/dist/web/pusher-with-encryption.js" },
  { version: 4, script: "node_modules/pusher-js-4/dist/web/pusher.js" },
];

export default async function inBrowser(check) {
  const backend = await startBackend();
  // pusher-js loads its SockJS from the vendor's CDN by name. The name leads to the backend, which has the very file.
  const cdn = `MAP js.pusher.com:80 ${new URL(backend.url).host}`;
  await withChromium(cdn, async (browser) => {
    for (const client of clients) {
      for (const transport of ["ws", "xhr_streaming", "xhr_polling", "sockjs"]) {
        await check.that(`chromium: pusher-js ${client.version} over ${transport} leaves no error on the page`, () =>
          runPage(check, browser, backend, { ...client, transport }));
      }
    }
  });
  backend.stop();
}

/** Runs the journey in a page of its own and repeats its lines here. */
async function runPage(check, browser, backend, { version, script, transport }) {
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  await page.exposeFunction("report", (line) => {
    const [verdict, sentence] = line.split(/ - (.*)/s);
    if (verdict !== "ok") check.failed += 1;
    check.print(`${verdict} - chromium: ${sentence}`);
  });
  await page.goto(`${backend.url}/page.html?script=${script}`);
  const target = { version, transport, host, port, key: main.key, backend: backend.url, decrypts: true };
  await page.evaluate(async (given) => {
    const [{ Check }, { journey }] = await Promise.all([import("/check.js"), import("/journey.js")]);
    await journey(new Check(window.report), { ...given, Pusher: window.Pusher });
  }, target);
  await page.close();
  if (faults.length) throw new Error(faults.join("; "));
}
