// `node run.js SUITE…` runs the named suites of this folder and exits with 1 when a behaviour failed.
import { Check } from "./check.js";

const check = new Check();
for (const name of process.argv.slice(2)) {
  const { default: suite } = await import(`./${name}.js`);
  await suite(check);
}
process.exit(check.failed ? 1 : 0);
