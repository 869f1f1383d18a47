// The view "Now": the server's live figures, polled while the view is open.
import { figures, hasKey, live } from "./api.js";
import { Chart } from "./chart.js";
import { byId, el, milliseconds, number } from "./dom.js";
import * as trouble from "./trouble.js";

const QUANTILES = ["p50", "p95", "p99"];
const STAGE_NAMES = { whole: "whole request", tokenize: "cut into tokens", queue: "waiting", compute: "computing", upstream: "other servers", encode: "writing out" };
const REASONS = {
  server_overloaded: "server full", timeout: "waited too long", model_loading: "model loading", model_unavailable: "model failed", store_unavailable: "key store unavailable",
  upstream_unavailable: "other server unavailable", invalid_api_key: "wrong key", missing_api_key: "no key", rate_limit_exceeded: "faster than the key may go", insufficient_quota: "budget spent",
};
const rate = (value) => number(value, value && value < 10 ? 1 : 0);
const share = (value) => `${number(100 * value)} %`;
const one = (value) => [{ name: "", value, line: "a" }];

let points = [];
let period = "in the last ten minutes";
let timer = 0;
let charts = null;
let stage = "whole";

export function open(askForKey) {
  close();
  if (live === "off") { refused("off"); return; }
  if (!hasKey() && live !== "loopback") { refused("key", askForKey); return; }
  build();
  poll(askForKey);
}

export function close() {
  clearTimeout(timer);
  timer = 0;
}

async function poll(askForKey) {
  const mine = (timer = -1 - performance.now());
  let wait = 2000;
  try {
    const told = document.hidden && points.length ? null : await figures(points.at(-1)?.number ?? -1);
    if (timer !== mine) return;
    if (told) {
      trouble.clear(byId("now-trouble"));
      add(told);
      wait = 1000 * told.interval_seconds;
    }
  } catch (error) {
    if (timer !== mine) return;
    if (!error.kind) throw error;
    if (["forbidden", "key", "wrong-key"].includes(error.kind)) { refused(error.kind, askForKey); return; }
    trouble.show(byId("now-trouble"), error);
    wait = 1000 * Math.max(error.seconds ?? 0, 4);
  }
  timer = setTimeout(() => poll(askForKey), wait);
}

// Says since when figures were taken: before that, an empty chart does not mean an idle server.
function say(since, seconds) {
  const isWhole = Date.now() / 1000 - since >= seconds;
  const clock = new Date(1000 * since).toLocaleTimeString();
  period = isWhole ? "in the last ten minutes" : `since ${clock}`;
  byId("now-since").textContent = isWhole ? "" : ` Watched since ${clock}: figures are taken only while somebody looks, and for ten minutes after.`;
}

function add({ points: fresh, kept_seconds: seconds, watched_since: since }) {
  say(since, seconds);
  if (fresh.length && points.length && fresh[0].number < points.at(-1).number) points = []; // the server was restarted
  points = [...points, ...fresh];
  const oldest = (points.at(-1)?.time ?? 0) - seconds;
  points = points.filter((point) => point.time >= oldest);
  byId("now").setAttribute("aria-busy", String(!points.length));
  for (const chart of charts) chart.show(points, seconds);
  table();
  reasons();
  upstreams();
}

const REFUSALS = {
  off: ["Live figures are turned off", [el("code", {}, "[page] live"), " in the server’s configuration turns them on. ", el("code", {}, "/metrics"), " may still tell them."]],
  key: ["Live figures need an admin key", ["They tell what all callers do, so they are for keys with the admin scope."]],
  "wrong-key": ["The server does not accept this key", ["Enter a key with the admin scope."]],
  forbidden: ["Live figures need an admin key", ["Yours may embed, but not look at all callers together. On the server’s own machine, ", el("code", {}, 'live = "loopback"'), " under ", el("code", {}, "[page]"), " in its configuration shows them without."]],
};

function refused(kind, askForKey) {
  close();
  points = [];
  trouble.clear(byId("now-trouble"));
  const [title, words] = REFUSALS[kind];
  byId("now").replaceChildren(el("section", { class: "card empty plain", dataset: { kind } }, el("div", { class: "empty-words" },
    el("h2", {}, title), el("p", {}, ...words.map((part) => (part.cloneNode ? part.cloneNode(true) : part))),
    kind !== "off" && el("p", {}, el("button", { type: "button", class: "primary", onclick: () => askForKey(() => open(askForKey)) }, kind === "key" ? "Enter key" : "Enter another key")))));
}

function build() {
  points = [];
  const latency = new Chart({
    id: "latency", title: "Time", about: "Quantiles over ten seconds", wide: true, format: milliseconds, least: 1,
    series: QUANTILES.map((name, index) => ({ name, line: "abc"[index], value: (point) => point.stages[stage]?.[index] ?? null })),
  });
  const options = Object.entries(STAGE_NAMES).map(([value, words]) => el("option", { value }, words));
  const chooser = el("select", { id: "stage", onchange: () => { stage = chooser.value; latency.draw(); } }, options);
  chooser.value = stage;
  latency.node.querySelector(".card-head").append(el("label", { class: "field inline small", for: "stage" }, el("span", {}, "of"), chooser));
  latency.node.append(el("div", { class: "scroll", id: "stages", tabindex: "0", role: "region", "aria-label": "Time by stage" }));
  charts = [
    new Chart({ id: "requests", title: "Requests a second", format: rate, series: one((point) => point.requests), least: 1 }),
    new Chart({ id: "texts", title: "Texts a second", format: rate, series: one((point) => point.texts), least: 1 }),
    new Chart({ id: "tokens", title: "Tokens a second", format: rate, series: one((point) => point.tokens), least: 10 }),
    latency,
    new Chart({
      id: "queue", title: "Texts waiting", about: "for a batch",
      format: rate, series: one((point) => point.queue_texts), least: 1,
    }),
    new Chart({
      id: "backlog", title: "Work waiting", about: "waiting tokens over the measured tokens a second",
      format: (value) => milliseconds(1000 * value), series: one((point) => point.backlog_seconds), least: 0.1,
    }),
    new Chart({
      id: "fill", title: "Batch fill", about: "tokens of a batch over those it may hold",
      format: share, series: one((point) => point.batch_fill), most: 1,
    }),
    new Chart({ id: "batch", title: "Texts a batch", format: rate, series: one((point) => point.batch_texts), least: 1 }),
    new Chart({
      id: "padding", title: "Padding", about: "of the tokens computed, those that hold nothing",
      format: share, series: one((point) => (point.padding ? 1 - 1 / point.padding : null)), least: 0.2,
    }),
    new Chart({ id: "cache", title: "Found in the cache", format: share, series: one((point) => point.cache_hits), most: 1 }),
  ];
  const rejected = new Chart({ id: "rejections", title: "Refused", wide: true, about: "requests in two seconds", format: rate, least: 1,
    series: one((point) => Object.values(point.rejections).reduce((sum, count) => sum + count, 0)) });
  rejected.node.append(el("div", { id: "reasons", class: "reasons" }));
  charts.push(rejected);
  byId("now").replaceChildren(el("div", { class: "charts" }, charts.map((chart) => chart.node),
    el("section", { class: "card chart", id: "upstreams", "aria-labelledby": "upstreams-title", hidden: true }, el("h2", { id: "upstreams-title" }, "Other servers"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Other servers" }))));
}

function table() {
  const last = points.at(-1);
  const rows = Object.keys(STAGE_NAMES).filter((name) => points.some((point) => point.stages[name])).map((name) =>
    el("tr", {}, el("th", { scope: "row" }, STAGE_NAMES[name]), QUANTILES.map((_, index) => el("td", {}, last.stages[name] ? milliseconds(last.stages[name][index]) : "–"))));
  byId("stages").replaceChildren(rows.length
    ? el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Stage"), QUANTILES.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows))
    : el("p", { class: "muted small" }, `No request ${period}.`));
}

function reasons() {
  const sums = {};
  for (const point of points) for (const [reason, count] of Object.entries(point.rejections)) sums[reason] = (sums[reason] ?? 0) + count;
  const found = Object.entries(sums).sort((a, b) => b[1] - a[1]);
  byId("reasons").replaceChildren(found.length
    ? el("ul", {}, found.map(([reason, count]) => el("li", {}, `${REASONS[reason] ?? reason.replaceAll("_", " ")} `, el("b", {}, number(count)))))
    : el("p", { class: "muted small" }, `Nobody ${period}.`));
}

function upstreams() {
  const last = points.at(-1)?.upstreams ?? {};
  const names = Object.keys(last).sort();
  byId("upstreams").hidden = !names.length;
  byId("upstreams").querySelector(".scroll").replaceChildren(el("table", {},
    el("thead", {}, el("tr", {}, ["Server", "State", "Requests a second", "Failed"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, names.map((name) => el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, name)),
      el("td", {}, el("span", { class: `state ${last[name].up ? "ready" : "failed"}` }, last[name].up ? "up" : "down")), el("td", {}, rate(last[name].requests)), el("td", {}, rate(last[name].failures)))))));
}
