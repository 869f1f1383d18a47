// The view "Models": a card for each model, with its aliases beside its name.
import { hasKey } from "./api.js";
import { byId, copied, el, number } from "./dom.js";
import { choose, chooseReranker, models, onChange } from "./session.js";

const STATES = { ready: "ready", loading: "loading", failed: "failed", unloaded: "not loaded" };
const LONG = {
  chunk: "read in windows, then averaged",
  end: "cut at the end",
  error: "refused",
};

const KINDS = { reranker: "reranker", sparse_encoder: "sparse encoder", multi_vector_encoder: "multi-vector encoder" };

export function begin(askForKey) {
  const draw = () => byId("models").replaceChildren(...(models().length ? [grid()] : [nothing(askForKey)]));
  onChange(draw);
  draw();
}

function nothing(askForKey) {
  return el("section", { class: "card empty plain" },
    el("div", { class: "empty-words" },
      el("h2", {}, hasKey() ? "No model to show" : "Models are shown to whoever has a key"),
      el("p", {}, hasKey() ? "This server lists no model for this key." : "Which models there are depends on what your key may use."),
      !hasKey() && el("p", {}, el("button", { type: "button", class: "primary", onclick: () => askForKey(() => {}) }, "Enter key"))));
}

function grid() {
  const own = models().filter((model) => !model.alias_of);
  const orphans = models().filter((model) => model.alias_of && !own.some((other) => other.id === model.alias_of));
  return el("div", { class: "model-grid" }, [...own, ...orphans].map(card));
}

function card(model) {
  const aliases = models().filter((other) => other.alias_of === model.id).map((other) => other.id);
  const isEmbedder = (model.kind ?? "embedder") === "embedder";
  const facts = [
    ["Kind", KINDS[model.kind], model.kind === "reranker" && "scores texts by a query"],
    ["Source", model.source, model.backend],
    ["Dimensions", model.dimensions && number(model.dimensions), model.kind === "sparse_encoder" ? "words that may have a weight" : "numbers a text"],
    ["Reads at once", model.max_tokens && `${number(model.max_tokens)} tokens`],
    ["Longer texts", model.long_input && longWords(model), model.long_input && `long_input = ${model.long_input}`],
    ["Precision", model.precision, [model.runtime, model.device].filter(Boolean).join(" on ")],
    ["Fidelity", model.fidelity && number(Math.floor(model.fidelity * 1e5) / 1e5, 5), model.fidelity && fidelityWords(model)],
    ["Nearest kept", model.nearest_kept && `${number(Math.floor(model.nearest_kept * 1e3) / 10, 1)} %`, "of a text's ten nearest, beside float32"],
    ["Memory", model.bytes && `${number(Math.round(model.bytes / 1e6))} MB`, model.loaded && idleWords(model)],
    ["Prompts", model.prompts?.length && model.prompts.join(", "), "values of input_type; a reply says which it got"],
    ["Fingerprint", model.fingerprint && fingerprint(model.fingerprint), model.fingerprint && "which vectors these are: when it changes, gateway models diff OLD NEW says whether to embed anew"],
  ].filter(([, value]) => value);
  return el("article", { class: "card model" },
    el("header", {}, el("h2", {}, el("bdi", {}, model.id)), el("span", { class: `state ${model.state}` }, STATES[model.state] ?? model.state)),
    facts.length
      ? el("dl", {}, facts.map(([term, value, about]) => el("div", {}, el("dt", {}, term), el("dd", {}, value, about && el("small", {}, about)))))
      : el("p", { class: "muted" }, "It tells the rest once it is loaded. At its very first start a model is compiled, which takes about half a minute."),
    aliases.length > 0 && el("div", { class: "aliases" }, el("h3", {}, "Also answers to"), el("ul", { class: "chips" }, aliases.map((alias) => el("li", {}, el("code", {}, alias))))),
    isEmbedder && el("p", { class: "model-actions" }, go(model, "#try", "Try it"), go(model, "#use", "Use it")),
    model.kind === "reranker" && el("p", { class: "model-actions" }, go(model, "#try", "Try it", search)));
}

const WINDOWS = { reranker: "read in windows, the best counts", sparse_encoder: "read in windows, a word's largest weight counts" };
const longWords = (model) => (model.long_input === "chunk" && WINDOWS[model.kind]) || LONG[model.long_input] || model.long_input;

const idleWords = ({ idle_since: since }) => (since === null ? "in use" : `idle since ${new Date(since * 1000).toLocaleTimeString()}`);

const fidelityWords = ({ kind }) => (kind === "reranker" ? "1 less the worst difference of a score from sentence-transformers" : "worst cosine to sentence-transformers");

const go = (model, view, words, onclick = () => choose(model.id)) =>
  el("a", { class: "button quiet", href: view, "aria-label": `${words}: ${model.id}`, onclick: () => onclick(model) }, words);

// A reranker is tried on the results of a search.
function search(model) {
  chooseReranker(model.id);
  document.querySelector("input[name=mode][value=search]").click();
}

function fingerprint(text) {
  const button = el("button", { type: "button", class: "copy inline", "aria-label": "Copy the fingerprint" }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Copy";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
  return el("span", { class: "fingerprint" }, el("code", {}, text), button);
}
