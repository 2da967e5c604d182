// Lets a stock pusher-js go on where it was after its connection broke, on channels that keep their history.
//
// It relies on what pusher-js has done since version 4: `message` carries everything that arrives, the application's own
// handlers included in front of it, and `state_change` comes before the channels are subscribed to again.

/**
 * @param {import("pusher-js").default} pusher
 * @param {{ onGap?: (channel: string) => void }} [options]
 *   `onGap` is called when something was missed on a channel and is not to be had any more: load its state anew.
 * @returns {{ rewind(channel: string, count: number): void }}
 *   `rewind`, called before `pusher.subscribe(channel)`, has the subscription begin with the last `count` events.
 */
export function recover(pusher, { onGap = () => {} } = {}) {
  /** What to ask for, by channel: `{ position }` of the last event that was handled, or `{ last }` before there is one. */
  const wanted = new Map();
  /** By channel, the position of the event that comes next. */
  const announced = new Map();
  /** Channels that asked to go on from a position and have not been answered. */
  const resuming = new Set();

  function ask(channel) {
    const what = wanted.get(channel);
    if (what.position) resuming.add(channel);
    pusher.send_event("pusher:resume", what, channel);
  }

  pusher.connection.bind("state_change", ({ current }) => {
    if (current !== "connected") return;
    announced.clear();
    resuming.clear();
    for (const [channel, { position }] of wanted) {
      if (position && !pusher.channel(channel)) wanted.delete(channel); // unsubscribed meanwhile
      else ask(channel);
    }
  });

  pusher.connection.bind("message", ({ event, channel, data }) => {
    if (event === "pusher_internal:position" && !data.skipped) {
      announced.set(channel, data.position);
    } else if (event === "pusher_internal:position") {
      wanted.set(channel, { position: data.position }); // an event of our own, which is not sent back to us
    } else if (event === "pusher_internal:recovered") {
      // Whoever asks for the last events takes what there is. Unasked, `false` says that something was missed just now.
      const isRewind = wanted.get(channel)?.last !== undefined;
      const isGap = resuming.delete(channel) ? data.recovered !== true : data.recovered === false && !isRewind;
      if (data.position) wanted.set(channel, { position: data.position });
      else wanted.delete(channel);
      if (isGap) onGap(channel);
    } else if (announced.has(channel)) {
      wanted.set(channel, { position: announced.get(channel) });
      announced.delete(channel);
    }
  });

  return {
    rewind(channel, count) {
      wanted.set(channel, { last: count });
      if (pusher.connection.state === "connected") ask(channel);
    },
  };
}
