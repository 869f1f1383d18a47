// A scatter plot of the texts: similar texts are near each other, as far as two dimensions can show.
import { cosineText, el, shortened, svg } from "./dom.js";
import { neighbours } from "./maths.js";
import { drawn, onArrows } from "./picture.js";

const MAX_NAMED = 16; // points with room for labels
const MAX_NUMBERED = 60;
const NUM_NEIGHBOURS = 3;
const LABEL_PIXELS = 6.7; // about a character's width, to keep labels apart
const LABEL_CHARS = [48, 32, 22, 15]; // lengths to try, longest first

export function map({ texts, points, shares, matrix, pick }) {
  const n = texts.length;
  const picture = svg("svg", { "aria-hidden": "true" });
  const tip = el("p", { class: "tip", hidden: true });
  const box = el("div", { class: "map-box", tabindex: "0", role: "application", "aria-label": `Map of ${n} texts. Arrow keys move from text to text.` }, picture, tip);
  const readout = el("p", { class: "unseen", "aria-live": "polite" });
  const scene = { texts, points, matrix, pick, picture, tip };

  drawn(box, (width) => draw(scene, width, box.clientHeight));
  pick.onChange(() => {
    mark(scene);
    if (pick.i !== null && document.activeElement === box) readout.textContent = spoken(scene);
  });
  box.addEventListener("pointerleave", () => pick.set(null));
  onArrows(box, {
    move: (rows, columns) => pick.set(pick.i === null ? 0 : (pick.i + rows + columns + n) % n),
    jump: (end) => pick.set(end === "first" ? 0 : n - 1),
    leave: () => pick.set(null),
  });
  box.addEventListener("focus", () => { if (pick.i === null && box.matches(":focus-visible")) pick.set(0); });
  const kept = Math.round(100 * (shares[0] + shares[1]));
  return el("section", { class: "card map", "aria-labelledby": "map-title" },
    el("div", { class: "card-head" }, el("h2", { id: "map-title" }, "Who stands near whom")),
    box, readout,
    el("p", { class: "muted small" }, `Principal components of the vectors. A plane keeps ${kept} % of their differences; the lines lead to the nearest texts in all dimensions.`));
}

const spoken = ({ texts, matrix, pick }) => {
  const [nearest] = neighbours(matrix, texts.length, pick.i, 1);
  const near = nearest === undefined ? "" : ` Nearest: ${texts[nearest]}, ${cosineText(matrix[pick.i * texts.length + nearest])}.`;
  return `${pick.i + 1} of ${texts.length}: ${texts[pick.i]}.${near}`;
};

function draw(scene, width, height) {
  const { texts, points, picture, pick } = scene;
  const n = texts.length;
  const radius = n <= MAX_NUMBERED ? 11 : 5;
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  scene.places = placed(points, width, height, n <= MAX_NAMED ? Math.min(width * 0.16, 90) : radius + 10, radius + 14);
  scene.lines = svg("g", { class: "links" });
  const labels = n <= MAX_NAMED ? labelled(texts, scene.places, width, height, radius) : [];
  scene.dots = scene.places.map(([x, y], index) =>
    svg("g", { class: "dot", transform: `translate(${x} ${y})`, onpointerenter: () => pick.set(index), onpointerdown: () => pick.set(index) },
      svg("circle", { r: Math.max(radius, 9), class: "reach" }),
      svg("circle", { r: radius }),
      n <= MAX_NUMBERED && svg("text", { "text-anchor": "middle", dy: "0.35em" }, String(index + 1))));
  picture.replaceChildren(scene.lines, svg("g", { class: "labels" }, labels), svg("g", {}, scene.dots));
  mark(scene);
}

// Both axes have the same scale, so that distances are true.
function placed(points, width, height, marginX, marginY) {
  const span = (axis) => { const all = points.map((point) => point[axis]); return [Math.min(...all), Math.max(...all)]; };
  const [[left, right], [bottom, top]] = [span(0), span(1)];
  const scale = Math.min((width - 2 * marginX) / (right - left || 1), (height - 2 * marginY) / (top - bottom || 1));
  return points.map(([x, y]) => [width / 2 + scale * (x - (left + right) / 2), height / 2 - scale * (y - (bottom + top) / 2)]);
}

// Places a label beside each point where it covers nothing. A point without such a place has no label.
function labelled(texts, places, width, height, radius) {
  const taken = places.map(([x, y]) => ({ left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }));
  const isFree = (box) => box.left >= 2 && box.right <= width - 2 && box.top >= 2 && box.bottom <= height - 2
    && taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
  return texts.flatMap((text, index) => {
    const [x, y] = places[index];
    for (const chars of LABEL_CHARS) {
      const words = shortened(text, chars);
      const wide = Array.from(words).reduce((sum, character) => sum + (character.codePointAt(0) > 0x2e80 ? 13 : LABEL_PIXELS), 0);
      const away = radius + 6;
      for (const [dx, dy, anchor] of [[away, 0, 0], [-away, 0, 1], [0, -away - 6, 0.5], [0, away + 6, 0.5]]) {
        const box = { left: x + dx - wide * anchor, right: x + dx + wide * (1 - anchor), top: y + dy - 9, bottom: y + dy + 9 };
        if (!isFree(box)) continue;
        taken.push(box);
        return [svg("text", { x: (box.left + box.right) / 2, y: y + dy, dy: "0.35em", "text-anchor": "middle", dataset: { index } }, words)];
      }
    }
    return [];
  });
}

function mark({ texts, places, dots, lines, matrix, pick, tip, picture }) {
  if (!dots) return;
  const n = texts.length;
  picture.classList.toggle("picking", pick.i !== null);
  dots.forEach((dot, index) => dot.classList.toggle("picked", pick.has(index)));
  tip.hidden = pick.i === null;
  if (pick.i === null) { lines.replaceChildren(); return; }
  const others = pick.j === null || pick.j === pick.i ? neighbours(matrix, n, pick.i, NUM_NEIGHBOURS) : [pick.j];
  for (const other of others) dots[other].classList.add("near");
  dots.forEach((dot, index) => dot.classList.toggle("near", others.includes(index)));
  const [x, y] = places[pick.i];
  lines.replaceChildren(...others.map((other) => svg("line", { x1: x, y1: y, x2: places[other][0], y2: places[other][1] })));
  tip.replaceChildren(el("b", {}, String(pick.i + 1)), " ", el("bdi", {}, shortened(texts[pick.i], 110)));
  const { width, height } = picture.viewBox.baseVal;
  tip.style.setProperty(x > width / 2 ? "right" : "left", `${Math.max(4, (x > width / 2 ? width - x : x) - 30)}px`);
  tip.style.removeProperty(x > width / 2 ? "left" : "right");
  tip.style.setProperty(y > height / 2 ? "bottom" : "top", `${(y > height / 2 ? height - y : y) + 20}px`);
  tip.style.removeProperty(y > height / 2 ? "top" : "bottom");
}
