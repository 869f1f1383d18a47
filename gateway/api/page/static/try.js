// The view "Try it": embeds texts and shows pictures of the result.
import { embed, hasKey } from "./api.js";
import { byId, el, plural } from "./dom.js";
import { heatmap } from "./heatmap.js";
import { map } from "./map.js";
import { cosine, cosines, nearestPairs, plane, products, rangeOf } from "./maths.js";
import { alikeTogether } from "./order.js";
import { Pick } from "./picture.js";
import { rerankCard } from "./rerank.js";
import { beforehand, nearest, ranking, summary } from "./result.js";
import { SAMPLES } from "./samples.js";
import { chosen, rerankers } from "./session.js";
import * as trouble from "./trouble.js";

const MAX_TEXTS = 500; // with more texts a picture has no details that an eye can distinguish
const NUM_PAIRS = 6;
const MAX_AS_PASTED = 40; // more texts are sorted by similarity: their numbers mean nothing to a reader
let wanted = 0; // number of the last request; replies to earlier ones are ignored

export function begin(askForKey) {
  const form = byId("try-form"), texts = byId("texts");
  const run = () => (hasKey() ? answer(askForKey) : askForKey(run));
  form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); } });
  for (const radio of form.elements.mode) radio.addEventListener("change", () => switchTo(mode()));
  for (const node of [texts, byId("separator")]) node.addEventListener("input", count);
  for (const chip of byId("samples").children) {
    chip.addEventListener("click", () => {
      take(chip.dataset.sample);
      if (hasKey()) run();
    });
  }
  take("five");
  switchTo("compare");
}

const mode = () => byId("try-form").elements.mode.value;

function switchTo(mode) {
  wanted++;
  byId("query-field").hidden = mode !== "search";
  byId("go").textContent = mode === "search" ? "Find the nearest" : "Compare these texts";
  byId("try-title").textContent = mode === "search" ? "Which of these texts answers the question?" : "Which of these texts mean the same?";
  trouble.clear(byId("try-trouble"));
  byId("results").replaceChildren(beforehand(mode));
}

function take(name) {
  const sample = SAMPLES[name];
  byId("texts").value = sample.texts.join("\n");
  byId("query").value = sample.query;
  byId("separator").value = "line";
  for (const chip of byId("samples").children) chip.setAttribute("aria-pressed", String(chip.dataset.sample === name));
  count();
}

function texts() {
  const split = byId("separator").value === "block" ? /\n\s*\n/ : /\n/;
  return byId("texts").value.replace(/\r\n?/g, "\n").split(split).map((text) => text.trim()).filter(Boolean);
}

function count() {
  const found = texts().length;
  byId("texts-count").textContent = found > MAX_TEXTS ? `${plural(found, "text")}, ${MAX_TEXTS} at most` : plural(found, "text");
  byId("texts-count").classList.toggle("bad", found > MAX_TEXTS);
}

// Checks before a request; shown in the same words and place as the server's errors.
function unfit(list, query) {
  if (list.length > MAX_TEXTS) return `${plural(list.length, "text")} are more than a picture can show: leave ${MAX_TEXTS} or fewer.`;
  if (mode() === "search") return !list.length ? "Paste some texts to search in." : !query ? "Write what to look for." : "";
  if (!chosen() && rerankers().length) return "This gateway gives no vectors, only a reranker’s scores: choose Search.";
  return list.length < 2 ? "Paste at least two texts, one a line." : "";
}

async function answer(askForKey) {
  const own = ++wanted;
  const list = texts(), query = byId("query").value.trim(), model = chosen();
  const place = byId("try-trouble"), go = byId("go"), isSearch = mode() === "search";
  const again = () => answer(askForKey);
  const reason = unfit(list, query);
  if (reason) { trouble.show(place, new Unfit(reason)); return; }
  if (isSearch && !model && rerankers().length) { scoredAlone(list, query, askForKey); return; }
  go.setAttribute("aria-busy", "true");
  byId("results").classList.add("waiting");
  try {
    const replies = await Promise.all(isSearch
      ? [embed({ model, texts: list, inputType: "document" }), embed({ model, texts: [query], inputType: "query" })]
      : [embed({ model, texts: list })]);
    if (own !== wanted) return;
    const answered = performance.now();
    trouble.clear(place);
    byId("results").replaceChildren(...(isSearch ? searched(replies, list, query, model, askForKey) : compared(replies, list, model)));
    if (!isInView(byId("results"))) byId("results").scrollIntoView({ block: "start" });
    byId("try-status").textContent = isSearch ? `${plural(list.length, "text")} ranked.` : `${plural(list.length, "text")} compared.`;
    requestAnimationFrame(() => setTimeout(() => performance.measure("drawn", { start: answered, end: performance.now() })));
  } catch (error) {
    if (own !== wanted) return;
    trouble.show(place, error, again);
    if (error.kind === "key" || error.kind === "wrong-key") askForKey(again, error);
    if (!error.kind) throw error; // a bug of this page: the console shows where
  } finally {
    if (own === wanted) {
      go.removeAttribute("aria-busy");
      byId("results").classList.remove("waiting");
    }
  }
}

const isInView = (node) => node.getBoundingClientRect().top < innerHeight * 0.7;

class Unfit extends Error {
  kind = "unfit";
}

function compared(replies, list, model) {
  const [{ vectors }] = replies;
  const n = list.length;
  const raw = products(vectors), matrix = cosines(raw, n), range = rangeOf(matrix, n), { points, shares } = plane(raw, n);
  const pick = new Pick();
  const scene = { texts: list, matrix, range, points, shares, pick };
  const heat = el("div", { class: "heat-place" });
  const given = list.map((_, index) => index);
  const alike = alikeTogether(matrix, n);
  const draw = (order) => { pick.drop(heat); heat.replaceChildren(heatmap({ ...scene, order, owner: heat })); };
  const order = el("select", { id: "order", onchange: () => { draw(order.value === "alike" ? alike : given); put(); order.focus(); } },
    el("option", { value: "given" }, "as pasted"), el("option", { value: "alike" }, "alike together"));
  const chooser = el("label", { class: "field inline small", for: "order" }, el("span", {}, "Order"), order);
  const put = () => heat.querySelector(".card-head").append(chooser);
  order.value = n > MAX_AS_PASTED ? "alike" : "given";
  draw(n > MAX_AS_PASTED ? alike : given);
  put();
  return [summary(replies, list, model), heat, map({ ...scene, pick }), nearest(nearestPairs(matrix, n, NUM_PAIRS), list, range, pick)];
}

// Where no model gives vectors, a reranker orders the texts as they were pasted.
function scoredAlone(list, query, askForKey) {
  trouble.clear(byId("try-trouble"));
  const given = list.map((_, index) => ({ index, cosine: null }));
  byId("results").replaceChildren(rerankCard(query, given, list, askForKey, { atOnce: true }));
}

function searched([documents, question], list, query, model, askForKey) {
  const found = documents.vectors
    .map((vector, index) => ({ index, cosine: cosine(vector, question.vectors[0]) }))
    .sort((a, b) => b.cosine - a.cosine || a.index - b.index);
  return [summary([documents, question], list, model), ranking(query, found, list), rerankCard(query, found, list, askForKey)];
}
