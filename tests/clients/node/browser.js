// pusher-js in Chromium: the current version and a 4.x, each over every transport alone, SockJS among them.
// The page and its scripts come from the backend's port, so that every request to the server crosses origins.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { startBackend } from "./backend.js";
import { Check } from "./check.js";
import { host, main, port } from "./target.js";

const clients = [
  { version: 8, script: "node_modules/pusher-js/dist/web/pusher-with-encryption.js" },
  { version: 4, script: "node_modules/pusher-js-4/dist/web/pusher.js" },
];

const check = new Check();
const backend = await startBackend();
const profile = await mkdtemp(join(tmpdir(), "dunlin-chromium-"));
const browser = await launch(profile, backend.url);
for (const client of clients) {
  for (const transport of ["ws", "xhr_streaming", "xhr_polling", "sockjs"]) {
    await check.that(`chromium runs pusher-js ${client.version} over ${transport} without an error on the page`, () => runPage({ ...client, transport }));
  }
}
await browser.close();
await rm(profile, { recursive: true, force: true });
backend.stop();
process.exit(check.failed ? 1 : 0);

/** Runs the journey in a page of its own and repeats its lines here. */
async function runPage({ version, script, transport }) {
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

/**
 * Chromium without anything that calls home. pusher-js loads its SockJS from the vendor's CDN by name; that name leads
 * to the backend, which serves the very file from the npm package. (Playwright's own request interception would
 * answer CORS preflights in the server's place, so that it must stay off.)
 */
function launch(userDataDir, backendUrl) {
  return chromium.launchPersistentContext(userDataDir, {
    executablePath: process.env.DUNLIN_TEST_CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      `--host-resolver-rules=MAP js.pusher.com:80 ${new URL(backendUrl).host}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`,
    ],
  });
}
