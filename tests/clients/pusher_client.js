// A client on the official pusher-js: it does what it is told on standard input, and tells what it hears.
"use strict";

const readline = require("readline");
const Pusher = require("pusher-js");

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const { key, port } = JSON.parse(process.argv[2]);

const pusher = new Pusher(key, {
  cluster: "none",
  wsHost: "127.0.0.1",
  wsPort: port,
  forceTLS: false,
  enabledTransports: ["ws"],
  channelAuthorization: { customHandler: (_, done) => done(null, { auth: `${key}:0` }) },
});

const orders = {
  subscribe: (channel) => pusher.subscribe(channel).bind_global((event, data) => tell({ channel, event, data })),
  unsubscribe: (channel) => pusher.unsubscribe(channel),
};

pusher.connection.bind("state_change", ({ current }) => tell({ state: current, socket: pusher.connection.socket_id }));
pusher.connection.bind("error", ({ type, data, error }) => {
  tell({ error: type, code: (data ?? error?.data)?.code ?? null });
});
readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => Object.entries(JSON.parse(line)).forEach(([order, channel]) => orders[order](channel)))
  .on("close", () => process.exit());
