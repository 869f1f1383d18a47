// Creates elements from names, properties and children. A string becomes a text node, never markup.
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, said] of Object.entries(value)) node.style.setProperty(name, said);
    else if (key === "dataset") Object.assign(node.dataset, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

export const shortened = (text, max) => {
  const flat = text.replace(/\s+/g, " ").trim();
  const characters = Array.from(flat);
  return characters.length > max ? characters.slice(0, max - 1).join("").trimEnd() + "…" : flat;
};

export const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

// Formats a cosine: two digits, a typographic minus, and no minus before zero.
export const cosineText = (value, digits = 2) => number(Number(value.toFixed(digits)) || 0, digits).replace("-", "−");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export const milliseconds = (value) => (value >= 1000 ? `${number(value / 1000, 2)} s` : `${number(value, value && value < 10 ? 1 : 0)} ms`);

// Calls back when the system's colour scheme changes, for what is drawn by script.
export const onSchemeChange = (draw) => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text); // over plain HTTP a page has no clipboard API
  }
}

function copiedBySelection(text) {
  const held = document.activeElement;
  const area = el("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  held?.focus();
  return done;
}
