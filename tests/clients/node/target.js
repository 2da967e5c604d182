// Where the server under test is. `cargo xtask test` starts it and sets these variables.
import Pusher from "pusher";

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run this suite through \`cargo xtask test\``);
  return value;
}

function app(prefix) {
  return { appId: required(`${prefix}_APP_ID`), key: required(`${prefix}_APP_KEY`), secret: required(`${prefix}_APP_SECRET`) };
}

export const host = required("DUNLIN_TEST_HOST");
export const port = Number(required("DUNLIN_TEST_PORT"));
export const main = app("DUNLIN_TEST");
export const other = app("DUNLIN_TEST_OTHER");
export const disabled = app("DUNLIN_TEST_DISABLED");
/** All of its channels keep 1000 events, those beginning with `tiny-` 5. */
export const kept = app("DUNLIN_TEST_HISTORY");

/** What happens in it is told to the receiver, to `/app-secret` with no secret but the app's and to `/own-secret` with both of these. */
export const told = app("DUNLIN_TEST_WEBHOOKS");
export const receiver = {
  port: Number(required("DUNLIN_TEST_RECEIVER_PORT")),
  secret: required("DUNLIN_TEST_RECEIVER_SECRET"),
  previousSecret: required("DUNLIN_TEST_RECEIVER_PREVIOUS_SECRET"),
};

export const encryptionMasterKeyBase64 = Buffer.alloc(32, "k").toString("base64");

/** The official server library, pointed at the server under test. */
export function library(credentials = main, options = {}) {
  return new Pusher({ ...credentials, host, port, useTLS: false, encryptionMasterKeyBase64, ...options });
}
