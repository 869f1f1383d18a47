// The served models, the chosen one and the chosen reranker. Views listen for a change.
import { models as askForModels } from "./api.js";

const POLL_MILLISECONDS = 2000;
const listeners = new Set();
let list = [];
let name = "";
let reranker = "";
let timer = 0;

export const models = () => list;
// What can be compared and searched with. The kind of a model that is not loaded is unknown.
export const embedders = () => list.filter((model) => (model.kind ?? "embedder") === "embedder");
// By their own names, and by an alias where the key may use no other name.
export const rerankers = () => list.filter((model) => model.kind === "reranker" && !list.some((other) => other.id === model.alias_of));
export const chosenReranker = () => (rerankers().find((model) => model.id === reranker) ?? rerankers()[0])?.id ?? "";
export const chooseReranker = (id) => { reranker = id; };
export const chosen = () => name;
export const about = () => list.find((model) => model.id === name) ?? null;
export const onChange = (listener) => { listeners.add(listener); };

export function choose(id) {
  name = id;
  tell();
}

// Polls while a model is loading, so that the page shows when it is ready. Throws Trouble.
export async function renew() {
  clearTimeout(timer);
  list = await askForModels();
  if (!embedders().some((model) => model.id === name)) name = embedders()[0]?.id ?? "";
  tell();
  if (list.some((model) => model.state === "loading")) timer = setTimeout(() => renew().catch(() => {}), POLL_MILLISECONDS);
}

export function forget() {
  clearTimeout(timer);
  list = [];
  name = "";
  tell();
}

function tell() {
  for (const listener of listeners) listener();
}
