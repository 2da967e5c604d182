// One line per behaviour: `ok - sentence` or `not ok - sentence: reason`. Runs in Node and in a browser page.

export const DEADLINE_MS = 15_000;

export class Check {
  failed = 0;

  constructor(print = (line) => console.log(line)) {
    this.print = print;
  }

  /** Runs one behaviour; it holds when `body` returns, and fails with what `body` throws. */
  async that(sentence, body) {
    try {
      await body();
      this.print(`ok - ${sentence}`);
    } catch (error) {
      this.failed += 1;
      this.print(`not ok - ${sentence}: ${error?.message ?? error}`);
    }
  }
}

/** Waits until `condition` is truthy and returns its value; throws after the deadline, saying what was awaited. */
export async function until(what, condition, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${deadlineMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function equal(actual, expected, what = "value") {
  const [a, e] = [canonical(actual), canonical(expected)];
  if (a !== e) throw new Error(`${what} is ${a}, expected ${e}`);
}

export function holds(claim, what) {
  if (!claim) throw new Error(what);
}

/** JSON with sorted keys, so that two equal values have one text. */
function canonical(value) {
  return JSON.stringify(value, (_, v) =>
    v && typeof v === "object" && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v,
  );
}
