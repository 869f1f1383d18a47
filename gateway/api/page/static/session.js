// What is served, and which of it is chosen. Views that show it listen.
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

// Throws Trouble. While a model is loading it is asked again, so that whoever waits sees it become ready.
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
