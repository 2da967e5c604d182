// The demo page: a plain pusher-js client, a form that triggers, and examples with the address of this server.
"use strict";

(async () => {
  const MOST_EVENTS = 100;
  const MOST_IN_LINE = 48;
  const DEFAULT_PORT = 6001;
  const $ = (id) => document.getElementById(id);
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // What comes before "/demo" is the prefix of a proxy.
  const prefix = location.pathname.replace(/\/demo$/, "");
  const isTls = location.protocol === "https:";
  const host = location.hostname;
  const port = Number(location.port) || (isTls ? 443 : 80);

  const answer = await fetch("demo/app.json");
  if (!answer.ok) return showState("failed", `the server answered ${answer.status}`);
  const app = await answer.json();
  $("app-id").textContent = app.id;
  $("app-key").textContent = app.key;

  // ------------------------------------------------------------------ the connection

  const pusher = new Pusher(app.key, {
    cluster: "",
    wsHost: host,
    wsPort: port,
    wssPort: port,
    wsPath: prefix,
    httpHost: host,
    httpPort: port,
    httpsPort: port,
    httpPath: prefix,
    forceTLS: isTls,
    enableStats: false,
    // It would be fetched from elsewhere.
    disabledTransports: ["sockjs"],
  });

  function showState(state, text = state) {
    $("state").dataset.state = state;
    $("state-text").textContent = text;
  }

  pusher.connection.bind("state_change", ({ current }) => showState(current));
  pusher.connection.bind("error", (problem) => {
    const { code, message } = problem?.data ?? problem?.error?.data ?? {};
    if (message) showState(pusher.connection.state, `${pusher.connection.state}: ${message} (${code})`);
  });
  showState(pusher.connection.state);

  // ------------------------------------------------------------------ channels

  function listen(name) {
    if (pusher.channel(name)) return;
    const count = element("span", { className: "count" });
    const chip = element("li", {}, element("span", { className: "name", textContent: name }), count);
    const channel = pusher.subscribe(name);
    channel.bind_global((event, data) => {
      if (!/^pusher(_internal)?:/.test(event)) showEvent(name, event, data);
    });
    channel.bind("pusher:subscription_count", ({ subscription_count: n }) => {
      count.textContent = n === 1 ? "1 subscriber" : `${n} subscribers`;
    });
    channel.bind("pusher:subscription_error", (problem) => {
      leave();
      $("listen-problem").textContent = `${name}: ${problem?.error ?? "the subscription was refused"}`;
    });
    function leave() {
      channel.unbind();
      pusher.unsubscribe(name);
      chip.remove();
    }
    if (name !== "my-channel") {
      const button = element("button", { type: "button", textContent: "×", ariaLabel: `Stop listening to ${name}` });
      button.addEventListener("click", () => {
        leave();
        $("listen-channel").focus();
      });
      chip.append(button);
    }
    $("channels").append(chip);
  }

  $("listen").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const name = $("listen-channel").value.trim();
    $("listen-problem").textContent = "";
    if (/^(private|presence)-/.test(name)) {
      $("listen-problem").textContent = "Private and presence channels need a backend that authorizes; this page has none.";
      return;
    }
    listen(name);
    $("listen-channel").value = "";
  });

  // ------------------------------------------------------------------ events

  function showEvent(channel, event, data) {
    const now = new Date();
    const time = element("time", {
      dateTime: now.toISOString(),
      textContent: now.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 }),
    });
    const head = element(
      "div",
      { className: "event-head" },
      element("span", { className: "event-name", textContent: event }),
      element("span", { className: "event-channel", textContent: channel }),
      time,
    );
    const pre = element("pre", { textContent: readable(data) });
    $("events").prepend(element("li", { className: "fresh" }, head, pre));
    while ($("events").childElementCount > MOST_EVENTS) $("events").lastElementChild.remove();
    $("empty").hidden = true;
    $("log").hidden = false;
    $("clear").disabled = false;
    // What scrolls has to be reachable by keyboard.
    if (pre.scrollHeight > pre.clientHeight) pre.tabIndex = 0;
  }

  /** On one line if it is short. */
  function readable(data) {
    if (typeof data === "string") return data;
    const line = JSON.stringify(data) ?? "";
    return line.length > MOST_IN_LINE ? JSON.stringify(data, null, 2) : line;
  }

  $("clear").addEventListener("click", () => {
    $("events").replaceChildren();
    $("empty").hidden = false;
    $("log").hidden = true;
    $("clear").disabled = true;
  });

  // ------------------------------------------------------------------ triggering

  function showOutcome(kind, text) {
    $("outcome").dataset.kind = kind;
    $("outcome").textContent = text;
  }

  $("trigger").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const data = $("data").value;
    $("data").removeAttribute("aria-invalid");
    try {
      JSON.parse(data);
    } catch {
      $("data").setAttribute("aria-invalid", "true");
      $("data").focus();
      return showOutcome("bad", "The data is not JSON. A text needs its quotes: \"hello\".");
    }
    $("send").disabled = true;
    try {
      const begin = performance.now();
      const reply = await fetch("demo/trigger", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ name: $("event").value, channel: $("channel").value.trim(), data }),
      });
      const spent = Math.max(1, Math.round(performance.now() - begin));
      const text = (await reply.text()).trim();
      if (reply.ok) showOutcome("good", `Accepted in ${spent} ms`);
      else showOutcome("bad", `${reply.status}: ${text}`);
    } catch {
      showOutcome("bad", "The server cannot be reached.");
    } finally {
      $("send").disabled = false;
    }
  });

  // ------------------------------------------------------------------ examples

  const secret = app.secret ?? "APP_SECRET";
  $("secret-note").hidden = app.secret !== null;
  const q = JSON.stringify;
  const single = (text) => `'${String(text).replace(/[\\']/g, "\\$&")}'`;
  const shell = (text) => `'${String(text).replace(/'/g, "'\\''")}'`;
  const isReadyMade = app.id === "app-id" && app.key === "app-key" && app.secret !== null;
  const onlyHere = ["localhost", "127.0.0.1", "[::1]"].includes(host);

  function flags() {
    const all = [];
    if (!onlyHere) all.push(`--host ${shell(host)}`);
    if (!onlyHere || port !== DEFAULT_PORT) all.push(`--port ${port}`);
    if (isTls) all.push("--tls");
    if (!isReadyMade || !onlyHere) all.push(`--app-id ${shell(app.id)} --key ${shell(app.key)} --secret ${shell(secret)}`);
    return all.length ? ` \\\n  ${all.join(" ")}` : "";
  }

  const command = `trigger my-channel my-event \\\n  '{"hello":"world"}'${flags()}`;
  const examples = {
    "Command line": `dunlin ${command}

# in a clone of the repository
cargo run --release -- ${command}`,
    "Node.js": `// npm install pusher
const Pusher = require("pusher");

const pusher = new Pusher({
  appId: ${q(app.id)},
  key: ${q(app.key)},
  secret: ${q(secret)},
  host: ${q(host)},
  port: ${q(String(port))},
  useTLS: ${isTls},
});

pusher.trigger("my-channel", "my-event", { hello: "world" });`,
    Go: `// go get github.com/pusher/pusher-http-go/v5
package main

import "github.com/pusher/pusher-http-go/v5"

func main() {
	client := pusher.Client{
		AppID:  ${q(app.id)},
		Key:    ${q(app.key)},
		Secret: ${q(secret)},
		Host:   ${q(`${host}:${port}`)},
		Secure: ${isTls},
	}
	data := map[string]string{"hello": "world"}
	err := client.Trigger("my-channel", "my-event", data)
	if err != nil {
		panic(err)
	}
}`,
    Python: `# pip install pusher
${/^[0-9]+$/.test(app.id) ? "" : `#
# This library takes app ids of digits only. Start the server with
#   DUNLIN_DEFAULT_APP_ID=1001 DUNLIN_DEFAULT_APP_KEY=app-key \\
#   DUNLIN_DEFAULT_APP_SECRET=app-secret
# and come back to this page.
`}import pusher

client = pusher.Pusher(
    app_id=${q(app.id)},
    key=${q(app.key)},
    secret=${q(secret)},
    host=${q(host)},
    port=${port},
    ssl=${isTls ? "True" : "False"},
)

client.trigger("my-channel", "my-event", {"hello": "world"})`,
    PHP: `<?php // composer require pusher/pusher-php-server
require "vendor/autoload.php";

$pusher = new Pusher\\Pusher(${single(app.key)}, ${single(secret)}, ${single(app.id)}, [
    "host" => ${single(host)},
    "port" => ${port},
    "scheme" => ${single(isTls ? "https" : "http")},
    "useTLS" => ${isTls},
]);

$pusher->trigger("my-channel", "my-event", ["hello" => "world"]);`,
    Browser: `// npm install pusher-js
import Pusher from "pusher-js";

const pusher = new Pusher(${q(app.key)}, {
  cluster: "",
  wsHost: ${q(host)},
  wsPort: ${port},
  wssPort: ${port},${prefix ? `\n  wsPath: ${q(prefix)},` : ""}
  forceTLS: ${isTls},
  enabledTransports: ["ws", "wss"],
});

pusher.subscribe("my-channel").bind("my-event", (data) => console.log(data));`,
  };

  const tabs = Object.keys(examples).map((name, index) => {
    const tab = element("button", { type: "button", role: "tab", id: `tab-${index}`, textContent: name });
    tab.setAttribute("aria-controls", "panel");
    tab.addEventListener("click", () => select(index));
    return tab;
  });
  $("tabs").append(...tabs);

  function select(chosen) {
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === chosen));
      tab.tabIndex = index === chosen ? 0 : -1;
    });
    $("panel").setAttribute("aria-labelledby", `tab-${chosen}`);
    $("snippet").textContent = examples[tabs[chosen].textContent];
  }
  select(0);

  $("tabs").addEventListener("keydown", (pressed) => {
    const current = tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    const goal = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: tabs.length - 1 }[pressed.key];
    if (goal === undefined) return;
    pressed.preventDefault();
    const chosen = (goal + tabs.length) % tabs.length;
    select(chosen);
    tabs[chosen].focus();
  });

  $("copy").addEventListener("click", async () => {
    let outcome = "Copied";
    try {
      await navigator.clipboard.writeText($("snippet").textContent);
    } catch {
      // Without TLS browsers give the clipboard to pages of this machine only.
      getSelection().selectAllChildren($("snippet"));
      outcome = "Selected";
    }
    $("copy").textContent = outcome;
    $("copied").textContent = `${outcome}.`;
    setTimeout(() => {
      $("copy").textContent = "Copy";
      $("copied").textContent = "";
    }, 1500);
  });

  listen("my-channel");
})();
