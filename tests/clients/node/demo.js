// What a newcomer sees: a server that was started with nothing, its demo page in Chromium, and an event of the Go library.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { withChromium } from "./chromium.js";
import { equal, until } from "./check.js";

const { DUNLIN_TEST_HOST: host, DUNLIN_TEST_PORT: port, DUNLIN_TEST_SCRATCH: scratch } = process.env;

export default async function demo(check) {
  await withChromium("", async (browser) => {
    const page = await browser.newPage();
    const [faults, strangers] = [[], []];
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    page.on("request", (request) => new URL(request.url()).host !== `${host}:${port}` && strangers.push(request.url()));
    const shown = (text) => until(`${text} on the page`, async () => (await page.locator("#events").innerText()).includes(text));

    await check.that("demo: the page connects by itself", async () => {
      await page.goto(`http://${host}:${port}/demo`);
      await until("the connection", async () => (await page.locator("#state").getAttribute("data-state")) === "connected");
    });

    await check.that("demo: an event triggered by pusher-http-go arrives on the page", async () => {
      await until("the subscription", async () => /1 subscriber/.test(await page.locator("#channels").innerText()));
      const go = ["run", "./trigger", "my-channel", "greeting", '{"text":"hello from Go"}'];
      await promisify(execFile)("go", go, { cwd: join(import.meta.dirname, "../go") });
      await shown("greeting");
      await shown("hello from Go");
      await page.screenshot({ path: join(scratch, "demo.png"), fullPage: true });
    });

    await check.that("demo: the page's own form triggers an event", async () => {
      await page.fill("#event", "from-the-form");
      await page.fill("#data", '{"typed": "here"}');
      await page.click("#send");
      await shown("from-the-form");
    });

    await check.that("demo: the page is free of errors and asks nobody else for anything", async () => {
      equal([faults, strangers], [[], []], "errors and foreign requests");
    });
  });
}
