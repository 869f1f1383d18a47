// The view "Batches": the key's batches with their progress, polled while the view is open.
import { batches, cancelBatch, hasKey, hasBatches, keyEnd, saved } from "./api.js";
import { byId, el, number, plural } from "./dom.js";
import * as trouble from "./trouble.js";

const PAGE = 20, MOST = 100; // batches that are shown at first, and that one request may ask for
const MAX_ERRORS = 5; // of a batch, that are shown
const FAST_MILLISECONDS = 1000, SLOW_MILLISECONDS = 10000;
const UNFINISHED = new Set(["validating", "in_progress", "finalizing", "cancelling"]);
const CANCELLABLE = new Set(["validating", "in_progress"]);
const CLASSES = { completed: "ready", failed: "failed", expired: "failed", cancelled: "" };
const ENDS = { completed_at: "Completed", failed_at: "Failed", expired_at: "Expired", cancelled_at: "Cancelled" };

let shown = new Map(); // by id: what is drawn, and as what
let seen = new Map(); // by id: when how many were done, for the time that is left
let asked = new Set(); // whose cancelling waits for a second click
let limit = PAGE;
let owner = "";
let timer = 0;

export function open(askForKey) {
  close();
  if (!hasBatches) { empty("Batches are turned off", [el("code", {}, "[files] enabled = true"), " in the server’s configuration turns them on."]); return; }
  if (!hasKey()) {
    empty("Batches are shown to whoever has a key", ["Each key sees its own."],
      el("button", { type: "button", class: "primary", onclick: () => askForKey(() => {}) }, "Enter key"));
    return;
  }
  if (owner !== keyEnd()) {
    owner = keyEnd();
    [shown, seen, asked, limit] = [new Map(), new Map(), new Set(), PAGE];
    byId("batches").replaceChildren();
  }
  poll();
}

export function close() {
  clearTimeout(timer);
  timer = 0;
}

async function poll() {
  const mine = (timer = -1 - performance.now());
  let wait = SLOW_MILLISECONDS;
  try {
    if (!document.hidden || !shown.size) {
      const list = await pages();
      if (timer !== mine) return;
      trouble.clear(byId("batches-trouble"));
      draw(list);
      if (list.data.some((batch) => UNFINISHED.has(batch.status))) wait = FAST_MILLISECONDS;
    }
  } catch (error) {
    if (timer !== mine) return;
    if (!error.kind) throw error;
    trouble.show(byId("batches-trouble"), error);
    wait = 1000 * Math.max(error.seconds ?? 0, 4);
  }
  timer = setTimeout(poll, wait);
}

// The newest `limit` batches, by as many requests as that takes.
async function pages() {
  let list = await batches(Math.min(limit, MOST));
  const data = list.data;
  while (list.has_more && list.data.length === MOST && data.length < limit) {
    list = await batches(Math.min(limit - data.length, MOST), list.last_id);
    data.push(...list.data);
  }
  return { data, has_more: list.has_more };
}

function draw({ data, has_more: hasMore }) {
  if (!data.length) {
    empty("No batch yet", ["A batch is one file of requests, answered behind all others. ", el("code", {}, "client.batches.create"), " of OpenAI’s SDKs makes one."]);
    return;
  }
  const held = document.activeElement?.closest?.("[data-batch]") && document.activeElement;
  const next = new Map();
  for (const batch of data) {
    const left = timeLeft(batch);
    const as = JSON.stringify([batch, left, asked.has(batch.id)]);
    const before = shown.get(batch.id);
    next.set(batch.id, before?.as === as ? before : { as, node: card(batch, left) });
  }
  shown = next;
  const more = hasMore && el("p", { class: "more" }, el("button", { type: "button", class: "quiet", onclick: () => { limit += PAGE; poll(); } }, "Older batches"));
  byId("batches").replaceChildren(el("div", { class: "batch-list" }, [...shown.values()].map(({ node }) => node)), ...(more ? [more] : []));
  if (held) byId("batches").querySelector(`[data-batch="${held.dataset.batch}"][data-does="${held.dataset.does}"]`)?.focus();
}

function empty(title, words, ...more) {
  shown = new Map();
  byId("batches").replaceChildren(el("section", { class: "card empty plain" }, el("div", { class: "empty-words" },
    el("h2", {}, title), el("p", {}, ...words), ...more.map((each) => el("p", {}, each)))));
}

function card(batch, left) {
  const { total, completed, failed } = batch.request_counts;
  const title = batch.metadata?.name ?? batch.metadata?.description;
  return el("article", { class: "card batch", "aria-labelledby": batch.id },
    el("header", {}, el("h2", { id: batch.id }, el("bdi", {}, title ?? batch.id)), el("span", { class: `state ${CLASSES[batch.status] ?? "loading"}` }, batch.status.replace("_", " "))),
    el("p", { class: "small muted" }, title && [el("code", {}, batch.id), " · "], [batch.model ?? "model not read yet", batch.endpoint, `made ${clock(batch.created_at)}`, ended(batch)].filter(Boolean).join(" · ")),
    total > 0 && el("progress", { max: total, value: completed + failed, "aria-label": "Requests answered" }),
    total > 0 && el("p", { class: "counts" }, el("b", {}, number(completed)), ` of ${plural(total, "request")} answered`,
      failed > 0 && el("span", { class: "bad" }, ` · ${number(failed)} failed`), left && ` · ${left}`,
      batch.usage && ` · ${plural(batch.usage.total_tokens, "token")}`),
    batch.errors && faults(batch.errors.data),
    actions(batch));
}

function faults(errors) {
  const rest = errors.length - MAX_ERRORS;
  return el("ul", { class: "faults" },
    errors.slice(0, MAX_ERRORS).map(({ code, message, line }) => el("li", {}, el("code", {}, code), line && ` line ${number(line)}:`, ` ${message}`)),
    rest > 0 && el("li", { class: "muted" }, `and ${plural(rest, "more", "more")}`));
}

function actions(batch) {
  const button = (does, words, onclick, kind = "quiet") =>
    el("button", { type: "button", class: kind, dataset: { batch: batch.id, does }, "aria-label": `${words}: ${batch.id}`, onclick }, words);
  const made = [
    batch.output_file_id && button("output", "Save replies", () => save(batch.output_file_id, `${batch.id}_output.jsonl`)),
    batch.error_file_id && button("errors", "Save errors", () => save(batch.error_file_id, `${batch.id}_error.jsonl`)),
    CANCELLABLE.has(batch.status) && (asked.has(batch.id)
      ? button("cancel", "Cancel it for good", () => cancel(batch.id), "primary")
      : button("cancel", "Cancel", () => { asked.add(batch.id); poll(); })),
  ].filter(Boolean);
  return made.length > 0 && el("p", { class: "model-actions" }, made);
}

async function cancel(id) {
  asked.delete(id);
  await act(() => cancelBatch(id));
  poll();
}

const save = (file, name) => act(() => saved(file, name));

async function act(what) {
  try {
    await what();
    trouble.clear(byId("batches-trouble"));
  } catch (error) {
    if (!error.kind) throw error;
    close(); // the next poll would clear it
    trouble.show(byId("batches-trouble"), error);
    timer = setTimeout(poll, SLOW_MILLISECONDS);
  }
}

// By what this page saw itself: a browser's clock may differ from the server's.
function timeLeft(batch) {
  const { total, completed, failed } = batch.request_counts;
  const now = { at: performance.now(), done: completed + failed };
  if (batch.status !== "in_progress") { seen.delete(batch.id); return ""; }
  if (!seen.has(batch.id)) seen.set(batch.id, now);
  const first = seen.get(batch.id);
  const rate = (now.done - first.done) / (now.at - first.at);
  if (!(rate > 0)) return "";
  const minutes = Math.ceil((total - now.done) / rate / 60000);
  return minutes > 90 ? `about ${plural(Math.round(minutes / 60), "hour")} left` : `about ${plural(minutes, "minute")} left`;
}

const clock = (seconds) => new Date(1000 * seconds).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
const ended = (batch) => {
  const end = Object.keys(ENDS).find((name) => batch[name]);
  return end && `${ENDS[end].toLowerCase()} ${clock(batch[end])}`;
};
