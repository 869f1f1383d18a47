// The result in words and numbers: the summary, the time by stage, the nearest pairs, the ranking.
import { gradient, inkOn, ramp, step } from "./colour.js";
import { cosineText, el, isDark, milliseconds, number, plural, shortened } from "./dom.js";
import { lengthOf } from "./maths.js";
import { drawn } from "./picture.js";

const STAGES = { tokenize: "cut into tokens", queue: "waited", compute: "computed", upstream: "asked the other server", encode: "written out" };

// `replies` are those of the requests for this result: one to compare, two to search.
export function summary(replies, texts, model) {
  const sum = (value) => replies.reduce((total, reply) => total + value(reply), 0);
  const vectors = replies.flatMap((reply) => reply.vectors);
  const lengths = vectors.map(lengthOf);
  const [shortest, longest] = [Math.min(...lengths), Math.max(...lengths)];
  const hasCache = replies.some((reply) => reply.cacheHits !== null);
  const long = replies.map((reply) => reply.longInputs).find(Boolean);
  const facts = [
    ["Texts", number(texts.length)],
    ["Numbers a text", number(vectors[0].length), "the model’s dimensions"],
    ["Tokens", number(sum((reply) => reply.tokens)), "what the model reads, and what limits count"],
    ["Vector length", longest - shortest < 0.0005 ? number(longest, 3) : `${number(shortest, 2)} – ${number(longest, 2)}`, "1 where vectors are normalised"],
    hasCache && ["From the cache", `${number(sum((reply) => reply.cacheHits ?? 0))} of ${number(vectors.length)}`, "texts embedded before cost nothing"],
    ["Round trip", milliseconds(Math.max(...replies.map((reply) => reply.roundTrip))), "from this tab and back"],
  ];
  return el("section", { class: "card summary", "aria-labelledby": "summary-title" },
    el("h2", { class: "unseen", id: "summary-title" }, "Summary"),
    el("dl", { class: "facts" }, facts.filter(Boolean).map(([name, value, about]) => el("div", { title: about }, el("dt", {}, name), el("dd", {}, value)))),
    timing(replies),
    el("p", { class: "muted small made-by" }, "By ", el("bdi", {}, model), replies[0].fingerprint && [", fingerprint ", el("code", {}, replies[0].fingerprint)]),
    long && el("p", { class: "muted small" }, `Longer than the model reads at once: ${long.replace("=", " ")}.`));
}

function timing(replies) {
  const slowest = replies.reduce((a, b) => (b.roundTrip > a.roundTrip ? b : a));
  const known = slowest.stages.filter((stage) => stage.milliseconds > 0);
  const rest = Math.max(0, slowest.roundTrip - known.reduce((total, stage) => total + stage.milliseconds, 0));
  const parts = [...known, { name: "rest", milliseconds: rest }];
  const total = parts.reduce((sum, part) => sum + part.milliseconds, 0) || 1;
  const words = (name) => (name === "rest" ? "network and the rest" : STAGES[name] ?? name);
  return el("div", { class: "timing" },
    el("div", { class: "timing-bar", "aria-hidden": "true" },
      parts.map((part) => el("span", { class: `stage ${part.name}`, style: { "flex-grow": String(part.milliseconds / total) } }))),
    el("ul", { "aria-label": "Time by stage" },
      parts.map((part) => el("li", {}, el("i", { class: `stage ${part.name}` }), `${words(part.name)} `, el("b", {}, milliseconds(part.milliseconds))))));
}

export function nearest(pairs, texts, range, pick) {
  const rows = pairs.map(({ i, j, cosine }) => {
    const row = el("button", { type: "button", class: "pair", onclick: () => pick.set(i, j), onpointerenter: () => pick.set(i, j), onfocus: () => pick.set(i, j) },
      score(cosine, range), el("span", { class: "pair-texts" }, said(i, texts), said(j, texts)));
    pick.onChange(() => row.classList.toggle("picked", pick.has(i) && pick.has(j) && pick.i !== pick.j));
    return el("li", {}, row);
  });
  return el("section", { class: "card nearest", "aria-labelledby": "nearest-title" },
    el("h2", { id: "nearest-title" }, pairs.length > 1 ? "Nearest pairs" : "The pair"), el("ol", {}, rows));
}

function score(cosine, range) {
  const chip = el("strong", { class: "score" }, cosineText(cosine));
  drawn(chip, () => {
    const rgb = ramp(isDark())[step(cosine, range)];
    Object.assign(chip.style, { background: `rgb(${rgb.join(" ")})`, color: inkOn(rgb) });
  });
  return chip;
}

const said = (index, texts) => el("span", {}, el("b", {}, String(index + 1)), el("bdi", {}, shortened(texts[index], 80)));

// `found` are { index, cosine }, best first. A bar's length is the cosine; below 0 there is no bar.
export function ranking(query, found, texts) {
  const rows = found.map(({ index, cosine }, rank) =>
    el("li", { class: rank === 0 ? "best" : null },
      el("span", { class: "rank" }, String(rank + 1)),
      el("div", { class: "ranked" },
        el("p", {}, el("bdi", {}, shortened(texts[index], 160))),
        el("div", { class: "rank-bar", "aria-hidden": "true" }, el("span", { style: { width: `${(100 * Math.max(0, cosine)).toFixed(1)}%` } }))),
      el("strong", {}, cosineText(cosine))));
  return el("section", { class: "card ranking", "aria-labelledby": "ranking-title" },
    el("h2", { id: "ranking-title" }, "Best answers to “", el("bdi", {}, shortened(query, 60)), "”"),
    el("p", { class: "muted small" }, `All ${plural(texts.length, "text")}, nearest to the query first. 1 is the same meaning, 0 is nothing in common.`),
    el("ol", {}, rows));
}

// The placeholder before the first request: a sketch of what the picture will show, which cannot be mistaken for a result.
export function beforehand(mode) {
  const bar = el("div", { class: "ghost-legend" });
  drawn(bar, () => { bar.style.background = gradient(isDark()); });
  const cells = Array.from({ length: 25 }, (_, at) => {
    const [row, column] = [Math.floor(at / 5), at % 5];
    const near = row === column ? null : Math.floor(row / 2) === Math.floor(column / 2) ? 210 : 25 + ((row * 7 + column * 7) % 5) * 14;
    const cell = el("span");
    drawn(cell, () => { cell.style.background = near === null ? "var(--line)" : `rgb(${ramp(isDark())[near].join(" ")})`; });
    return cell;
  });
  const picture = mode === "search"
    ? el("div", { class: "ghost-bars", "aria-hidden": "true" }, [92, 61, 34, 22, 12].map((width) => el("span", { style: { width: `${width}%` } })))
    : el("div", { class: "ghost-heat", "aria-hidden": "true" }, cells);
  return el("section", { class: "card empty", "aria-label": "What you will see" }, picture,
    el("div", { class: "empty-words" },
      el("h2", {}, mode === "search" ? "The best answers will stand here" : "The picture will stand here"),
      mode === "search"
        ? el("p", {}, "Your query against every text of the list, the nearest in meaning first. No word needs to be the same.")
        : el("ul", {},
          el("li", {}, el("b", {}, "A square for every pair: "), "the stronger its colour, the closer the two in meaning."),
          el("li", {}, el("b", {}, "A map: "), "texts about the same thing stand together."),
          el("li", {}, el("b", {}, "The nearest pairs, "), "and what it cost: tokens, time, cache."))));
}
