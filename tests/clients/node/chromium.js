// Debian's Chromium, without anything in it that calls home.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

/**
 * Starts Chromium with an empty profile, hands it to `body` and ends it. Names resolve to nothing but by `resolverRules`.
 * (Names are mapped and not intercepted, because Playwright's interception answers CORS preflights in the server's place.)
 */
export async function withChromium(resolverRules, body) {
  const profile = await mkdtemp(join(tmpdir(), "dunlin-chromium-"));
  const rules = [resolverRules, "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"].filter(Boolean).join(", ");
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      `--host-resolver-rules=${rules}`,
    ],
  });
  try {
    await body(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}
