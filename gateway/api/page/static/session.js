// The served models, and the chosen one. Views listen for a change.
import { models as askForModels } from "./api.js";

const POLL_MILLISECONDS = 2000;
const listeners = new Set();
let list = [];
let name = "";
let timer = 0;

export const models = () => list;
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
  if (!list.some((model) => model.id === name)) name = list[0]?.id ?? "";
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
