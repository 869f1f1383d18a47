// Below a search's results: a reranker reads the query with each text and orders them anew. Old and new order stand side by side.
import { rerank } from "./api.js";
import { cosineText, el, milliseconds, number, plural, shortened } from "./dom.js";
import { chooseReranker, chosenReranker, rerankers } from "./session.js";
import * as trouble from "./trouble.js";

// `found` are { index, cosine } in the order of the search, best first; a cosine of null was not measured. With `atOnce` nobody
// needs to click: there is no search without an embedding model.
export function rerankCard(query, found, texts, askForKey, { atOnce = false } = {}) {
  const place = el("div"), list = el("div", { "aria-live": "polite" });
  const card = el("section", { class: "card reranking", "aria-labelledby": "rerank-title" },
    el("h2", { id: "rerank-title" }, "Rerank"), explanation(), place, list);
  if (!rerankers().length) return card;
  const button = el("button", { type: "button", class: "primary", id: "rerank", onclick: () => run() }, "Rerank these results");
  let wanted = 0; // the latest run: a late reply of one before changes nothing
  const run = async () => {
    const own = ++wanted;
    button.setAttribute("aria-busy", "true");
    trouble.clear(place);
    try {
      const reply = await rerank({ model: chosenReranker(), query, texts });
      if (own !== wanted) return;
      list.replaceChildren(...reranked(reply, found, texts));
    } catch (error) {
      if (own !== wanted) return;
      trouble.show(place, error, run);
      if (error.kind === "key" || error.kind === "wrong-key") askForKey(run, error);
      if (!error.kind) throw error; // a bug of this page: the console shows where
    } finally {
      if (own === wanted) button.removeAttribute("aria-busy");
    }
  };
  place.before(el("div", { class: "rerank-actions" }, chooser(), button));
  if (atOnce) run();
  return card;
}

function explanation() {
  const what = "An embedding sees one text at a time. A reranker reads the query and a text together, which takes longer and orders more exactly.";
  return el("p", { class: "muted small" }, rerankers().length ? what : `${what} This gateway serves none that you can use.`);
}

// With one reranker there is nothing to choose: its name is enough.
function chooser() {
  const own = rerankers();
  if (own.length === 1) return el("span", { class: "muted small" }, "by ", el("bdi", {}, own[0].id));
  const select = el("select", { id: "reranker", onchange: () => chooseReranker(select.value) },
    own.map((model) => el("option", { value: model.id }, model.id)));
  select.value = chosenReranker();
  return el("label", { class: "field inline small", for: "reranker" }, el("span", {}, "Reranker"), select);
}

function reranked({ results, tokens, roundTrip, model }, found, texts) {
  const before = new Map(found.map(({ index, cosine }, rank) => [index, { rank, cosine }]));
  const moved = results.filter(({ index }, rank) => before.get(index).rank !== rank).length;
  const rows = results.map(({ index, score }, rank) => row({ rank, score, text: texts[index], before: before.get(index) }));
  const hasSearch = found[0].cosine !== null;
  return [
    el("p", { class: "muted small", id: "rerank-summary" },
      hasSearch && `${moved ? `${plural(moved, "text")} of ${number(results.length)} moved` : "The order stays as it is"}. `,
      `${plural(tokens, "token")} in ${milliseconds(roundTrip)}, by `, el("bdi", {}, model), ". 1 answers the query surely, 0 surely does not."),
    el("ol", {}, rows),
  ];
}

function row({ rank, score, text, before }) {
  const steps = before.rank - rank;
  const words = steps === 0 ? `stays ${rank + 1}` : `was ${before.rank + 1}`;
  return el("li", { class: rank === 0 ? "best" : null },
    el("span", { class: "rank" }, String(rank + 1)),
    el("div", { class: "ranked" },
      el("p", {}, el("bdi", {}, shortened(text, 160))),
      before.cosine !== null && el("p", { class: `moved small ${Math.sign(steps) === 1 ? "up" : steps ? "down" : "same"}` },
        el("span", { "aria-hidden": "true" }, steps > 0 ? "▲ " : steps < 0 ? "▼ " : ""), `${words}, cosine ${cosineText(before.cosine)}`),
      el("div", { class: "rank-bar", "aria-hidden": "true" }, el("span", { style: { width: `${(100 * score).toFixed(1)}%` } }))),
    el("strong", {}, number(score, 3)));
}
