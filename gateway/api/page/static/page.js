// The page's frame: the choice of view, key and model. Each view is in a file of its name.
import { hasBatches, hasKey, keyEnd, live, needsKey, useKey } from "./api.js";
import * as batchesView from "./batches.js";
import { byId, el } from "./dom.js";
import * as modelsView from "./models.js";
import * as nowView from "./now.js";
import { about, choose, chosen, embedders, forget, onChange, renew } from "./session.js";
import * as trouble from "./trouble.js";
import * as tryView from "./try.js";
import * as useView from "./use.js";

const VIEWS = ["try", "use", "models", "batches", "now"];
const facts = document.documentElement.dataset;
let afterwards = null; // called once there is a key

function show() {
  const asked = location.hash.slice(1);
  const view = VIEWS.includes(asked) ? asked : "try";
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`view-${view}`).querySelector("h1").textContent} · Embeddings gateway`;
  if (view === "now") nowView.open(askForKey);
  else nowView.close();
  if (view === "batches") batchesView.open(askForKey);
  else batchesView.close();
}

// Opens the key card. `then` is called once the server has accepted a key.
function askForKey(then, error = null) {
  afterwards = then;
  byId("key-card").hidden = false;
  byId("key-button").setAttribute("aria-expanded", "true");
  if (error) trouble.show(byId("key-trouble"), error);
  byId("key").focus();
}

async function accept(text) {
  const before = useKey(text);
  byId("key-use").setAttribute("aria-busy", "true");
  try {
    await renew();
    byId("key").value = "";
    byId("key-card").hidden = needsKey ? true : byId("key-card").hidden;
    trouble.clear(byId("key-trouble"));
    trouble.clear(byId("try-trouble"));
    byId("key-button").setAttribute("aria-expanded", "false");
    const then = afterwards ?? (() => {});
    afterwards = null;
    if (byId("view-try").hidden === false) byId("go").focus();
    then();
    if (!byId("view-now").hidden) nowView.open(askForKey);
    if (!byId("view-batches").hidden) batchesView.open(askForKey);
  } catch (error) {
    if (!error.kind) throw error;
    if (error.kind === "wrong-key") useKey(before); // a key that worked stays in use
    trouble.show(byId("key-trouble"), error, () => accept(text));
    byId("key").focus();
  } finally {
    byId("key-use").removeAttribute("aria-busy");
    tell();
  }
}

function tell() {
  const select = byId("model"), button = byId("key-button");
  const own = embedders();
  select.disabled = !own.length;
  select.replaceChildren(...(own.length
    ? own.map((model) => el("option", { value: model.id }, model.id + (model.state === "loading" ? " (loading)" : model.state === "failed" ? " (failed)" : "")))
    : [el("option", {}, hasKey() ? "none yet" : "needs a key")]));
  if (own.length) select.value = chosen();
  select.title = about()?.alias_of ? `Another name of ${about().alias_of}` : "";
  button.hidden = !needsKey;
  button.textContent = keyEnd() ? `Key …${keyEnd()}` : "Enter key";
  button.classList.toggle("has-key", Boolean(keyEnd()));
  byId("key-title").textContent = keyEnd() ? "Another API key" : "First, your API key";
  byId("key-forget").hidden = !keyEnd();
}

function begin() {
  byId("version").textContent = `Embeddings gateway ${facts.version}.`;
  byId("docs-link").hidden = facts.docs !== "on";
  for (const link of document.querySelectorAll(".views a")) if ((live === "off" && link.hash === "#now") || (!hasBatches && link.hash === "#batches")) link.hidden = true;
  onChange(tell);
  tryView.begin(askForKey);
  useView.begin();
  modelsView.begin(askForKey);
  byId("model").addEventListener("change", () => choose(byId("model").value));
  byId("key-button").addEventListener("click", () => {
    const opens = byId("key-card").hidden;
    byId("key-card").hidden = !opens;
    byId("key-button").setAttribute("aria-expanded", String(opens));
    if (opens) byId("key").focus();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("key").value.trim();
    if (text) accept(text);
    else byId("key").focus();
  });
  byId("key-forget").addEventListener("click", () => { useKey(""); forget(); show(); byId("key").focus(); });
  addEventListener("hashchange", () => { show(); byId("main").focus({ preventScroll: true }); scrollTo(0, 0); });
  tell();
  show();
  if (needsKey) byId("key-card").hidden = false;
  else renew().catch((error) => trouble.show(byId("try-trouble"), error, () => accept("")));
}

begin();
