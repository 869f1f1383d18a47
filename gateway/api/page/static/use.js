// The view "Use it": code for the chosen model, to copy.
import { base, needsKey } from "./api.js";
import { byId, copied, el } from "./dom.js";
import { about, chosen, onChange } from "./session.js";
import { PLACEHOLDER, SNIPPETS } from "./snippets.js";

// Syntax highlighting: comments, strings, numbers and keywords are enough to make code easy to read.
const PARTS = {
  python: /(#.*$)|("(?:\\.|[^"\\])*")|\b(\d+(?:\.\d+)?)\b|\b(from|import|for|in|if|not|def|return|with|as|None|True|False)\b/gm,
  js: /(\/\/.*$)|("(?:\\.|[^"\\])*")|\b(\d+(?:\.\d+)?)\b|\b(import|from|const|new|await|for|of)\b/gm,
  sh: /(^#.*$)|('(?:[^']|'\\'')*')|(\B-\w\b)|\b(curl)\b/gm,
};
const RUN = { python: "python", js: "node" };
const CLASSES = ["comment", "text", "number", "word"];
const MODEL_PLACEHOLDER = "YOUR_MODEL";
let at = 0;

export function begin() {
  onChange(draw);
  draw();
}

function draw() {
  const hadFocus = document.activeElement?.getAttribute("role") === "tab";
  const tabs = SNIPPETS.map((snippet, index) =>
    el("button", {
      type: "button", role: "tab", id: `tab-${index}`, "aria-controls": "snippet", "aria-selected": String(index === at),
      tabindex: index === at ? "0" : "-1", onclick: () => turnTo(index),
    }, snippet.name));
  byId("use").replaceChildren(
    addresses(),
    el("div", { class: "card code-card" },
      el("div", { class: "tabs", role: "tablist", "aria-label": "Clients", onkeydown: onTabKey }, tabs),
      panel(SNIPPETS[at])));
  if (hadFocus) tabs[at].focus();
}

function turnTo(index) {
  at = (index + SNIPPETS.length) % SNIPPETS.length;
  draw();
  byId(`tab-${at}`).focus();
}

function onTabKey(event) {
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: SNIPPETS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  turnTo(to);
}

function addresses() {
  const name = chosen() || MODEL_PLACEHOLDER;
  const rows = [["Base URL", base], ["Model", name], ["API key", needsKey ? `${PLACEHOLDER}: put yours in its place` : "any text: this server asks for none"]];
  return el("dl", { class: "card addresses" }, rows.map(([term, value], index) =>
    el("div", {}, el("dt", {}, term), el("dd", {}, index < 2 ? el("code", {}, value) : value, index < 2 && copyButton(value, `Copy: ${term}`)))));
}

function panel(snippet) {
  const code = codeOf(snippet);
  return el("div", { id: "snippet", role: "tabpanel", "aria-labelledby": `tab-${at}` },
    snippet.install && el("div", { class: "install" }, el("code", {}, snippet.install), copyButton(snippet.install, "Copy the installation")),
    el("div", { class: "code" },
      el("div", { class: "code-head" }, el("span", {}, snippet.file), copyButton(code, "Copy the code")),
      el("pre", { tabindex: "0", "aria-label": `Code: ${snippet.name}` }, el("code", {}, painted(code, snippet.language)))),
    el("p", { class: "muted small" },
      RUN[snippet.language] && ["Run it with ", el("code", {}, `${RUN[snippet.language]} ${snippet.file}`), ". "],
      snippet.about && `${snippet.about} `,
      needsKey && ["Put your key in the place of ", el("code", {}, PLACEHOLDER), "."],
      !chosen() && " Enter your key to see the models’ names."));
}

const codeOf = (snippet) =>
  snippet.code({ base, model: chosen() || MODEL_PLACEHOLDER, key: needsKey ? PLACEHOLDER : "none-needed", dimensions: about()?.dimensions ?? null });

function copyButton(text, label) {
  const words = "Copy";
  const button = el("button", { type: "button", class: "copy", "aria-label": label }, words);
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Press Ctrl+C";
    button.setAttribute("aria-label", button.textContent);
    setTimeout(() => { button.textContent = words; button.setAttribute("aria-label", label); }, 1600);
  });
  return button;
}

function painted(code, language) {
  const nodes = [];
  let end = 0;
  for (const match of code.matchAll(PARTS[language])) {
    nodes.push(code.slice(end, match.index), el("span", { class: `code-${CLASSES[match.slice(1).findIndex((part) => part !== undefined)]}` }, match[0]));
    end = match.index + match[0].length;
  }
  return [...nodes, code.slice(end)];
}
