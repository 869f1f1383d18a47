// A heatmap of all pairs of texts. The colour is the cosine.
import { gradient, inkOn, ramp, step } from "./colour.js";
import { cosineText, el, isDark, shortened } from "./dom.js";
import { neighbours } from "./maths.js";
import { colour, drawn, onArrows } from "./picture.js";

const MAX_LABELLED = 20; // rows with room for the beginning of their text
const MAX_ROOMY = 8; // rows with room for two lines of it
const MAX_TABLE = 20;
const MAX_GAPPED = 60;
const MIN_VALUE_PIXELS = 34; // a narrower cell has no number

export function heatmap({ texts, matrix, range, order, pick, owner }) {
  const n = texts.length;
  const canvas = el("canvas", { "aria-hidden": "true" });
  const box = el("div", {
    class: "heat-box", tabindex: "0", role: "application", "aria-label": `Heatmap of ${n} by ${n} texts. Arrow keys move from pair to pair.`,
  }, canvas);
  const readout = el("div", { class: "readout", "aria-live": "polite" });
  const labels = n <= MAX_LABELLED && el("ol", { class: "heat-labels", "aria-hidden": "true" },
    order.map((index) => el("li", {}, el("b", {}, String(index + 1)), el("span", {}, shortened(texts[index], 60)))));
  const scene = { n, matrix, range, order, pick, canvas };

  drawn(box, (size) => draw(scene, size));
  pick.onChange(() => { box.draw(); tell(readout, { texts, matrix, range, pick }); }, owner);
  tell(readout, { texts, matrix, range, pick });
  pointed(box, scene);
  return el("section", { class: "card heat", "aria-labelledby": "heat-title" },
    el("div", { class: "card-head" }, el("h2", { id: "heat-title" }, "How alike, pair by pair")),
    el("div", { class: `heat-plot${labels ? " labelled" : ""}${n <= MAX_ROOMY ? " roomy" : ""}` }, labels, box),
    legend(range),
    readout,
    n <= MAX_TABLE && table(texts, matrix));
}

function draw({ n, matrix, range, order, pick, canvas }, size) {
  const ratio = Math.max(1, Math.min(window.devicePixelRatio || 1, 3));
  canvas.width = canvas.height = Math.round(size * ratio);
  const context = canvas.getContext("2d");
  const colours = ramp(isDark());
  const cell = canvas.width / n;
  if (n > MAX_GAPPED) drawPixels(context, { n, matrix, range, order, colours });
  else drawCells(context, { n, matrix, range, order, colours, cell, ratio });
  for (const index of [pick.i, pick.j]) {
    if (index !== null) drawCross(context, order.indexOf(index), cell, ratio, pick.j === null);
  }
  if (pick.i !== null && pick.j !== null) drawPicked(context, order.indexOf(pick.i), order.indexOf(pick.j), cell, ratio);
}

function drawPixels(context, { n, matrix, range, order, colours }) {
  const image = new ImageData(n, n);
  const own = colour("line").match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16));
  for (let row = 0, at = 0; row < n; row++) {
    for (let column = 0; column < n; column++, at += 4) {
      const [r, g, b] = row === column ? own : colours[step(matrix[order[row] * n + order[column]], range)];
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(n, n);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, context.canvas.width, context.canvas.width);
}

function drawCells(context, { n, matrix, range, order, colours, cell, ratio }) {
  const gap = Math.min(3 * ratio, cell * 0.06);
  const radius = Math.min(5 * ratio, cell * 0.12);
  context.clearRect(0, 0, context.canvas.width, context.canvas.width);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `${Math.min(15 * ratio, cell * 0.32)}px ${getComputedStyle(document.body).fontFamily}`;
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) {
      const value = matrix[order[row] * n + order[column]];
      const rgb = colours[step(value, range)];
      context.fillStyle = row === column ? colour("line") : `rgb(${rgb.join(" ")})`;
      context.beginPath();
      context.roundRect(column * cell + gap / 2, row * cell + gap / 2, cell - gap, cell - gap, radius);
      context.fill();
      if (row !== column && cell >= MIN_VALUE_PIXELS * ratio) {
        context.fillStyle = inkOn(rgb);
        context.fillText(cosineText(value), (column + 0.5) * cell, (row + 0.5) * cell);
      }
    }
  }
}

function drawCross(context, at, cell, ratio, isStrong) {
  const size = context.canvas.width;
  context.strokeStyle = colour("ink");
  context.globalAlpha = isStrong ? 0.9 : 0.3;
  context.lineWidth = (isStrong ? 2 : 1) * ratio;
  context.strokeRect(0, at * cell, size, cell);
  context.strokeRect(at * cell, 0, cell, size);
  context.globalAlpha = 1;
}

function drawPicked(context, row, column, cell, ratio) {
  const side = Math.max(cell, 6 * ratio);
  for (const [x, y] of [[column, row], [row, column]]) {
    for (const [style, width] of [[colour("card"), 5], [colour("ink"), 2.5]]) {
      context.strokeStyle = style;
      context.lineWidth = width * ratio;
      context.strokeRect((x + 0.5) * cell - side / 2, (y + 0.5) * cell - side / 2, side, side);
    }
  }
}

function pointed(box, { n, order, pick }) {
  const clamped = (at) => Math.max(0, Math.min(n - 1, at));
  const at = (event) => {
    const { left, top, width } = box.getBoundingClientRect();
    pick.set(order[clamped(Math.floor((n * (event.clientY - top)) / width))], order[clamped(Math.floor((n * (event.clientX - left)) / width))]);
  };
  const place = () => [pick.i === null ? 0 : order.indexOf(pick.i), pick.j === null ? Math.min(1, n - 1) : order.indexOf(pick.j)];
  box.addEventListener("pointermove", at);
  box.addEventListener("pointerdown", at);
  box.addEventListener("focus", () => { if (box.matches(":focus-visible")) { const [row, column] = place(); pick.set(order[row], order[column]); } });
  onArrows(box, {
    move: (rows, columns) => { const [row, column] = place(); pick.set(order[clamped(row + rows)], order[clamped(column + columns)]); },
    jump: (end) => pick.set(order[place()[0]], order[end === "first" ? 0 : n - 1]),
    leave: () => pick.set(null),
  });
}

function tell(readout, { texts, matrix, range, pick: { i, j } }) {
  if (i === null) {
    readout.replaceChildren(el("p", { class: "muted" }, "Point at a square, or move with the arrow keys, to read a pair of texts."));
    return;
  }
  const n = texts.length;
  const other = j ?? neighbours(matrix, n, i, 1)[0]; // a single text is shown with its nearest neighbour
  const value = matrix[i * n + other];
  const rgb = ramp(isDark())[step(value, range)];
  const isSame = i === other;
  readout.replaceChildren(
    el("strong", { class: "score", style: isSame ? {} : { background: `rgb(${rgb.join(" ")})`, color: inkOn(rgb) } }, cosineText(value)),
    el("div", { class: "readout-texts" }, said(i, texts), isSame ? el("p", { class: "muted" }, "and itself") : said(other, texts)));
}

const said = (index, texts) => el("p", {}, el("b", {}, String(index + 1)), el("bdi", {}, shortened(texts[index], 90)));

function legend([low, high]) {
  const bar = el("span", { class: "legend-bar" });
  drawn(bar, () => { bar.style.background = gradient(isDark()); });
  return el("div", { class: "legend", role: "img", "aria-label": `Colours from ${cosineText(low, 1)}, unlike, to ${cosineText(high, 1)}, alike` },
    el("span", {}, `${cosineText(low, 1)} unlike`), bar, el("span", {}, `alike ${cosineText(high, 1)}`));
}

function table(texts, matrix) {
  const n = texts.length;
  const head = el("tr", {}, el("th", { scope: "col" }, "Text"), texts.map((_, j) => el("th", { scope: "col" }, String(j + 1))));
  const rows = texts.map((text, i) => el("tr", {},
    el("th", { scope: "row" }, `${i + 1} `, el("bdi", {}, shortened(text, 40))),
    texts.map((_, j) => el("td", {}, cosineText(matrix[i * n + j])))));
  return el("details", { class: "as-table" }, el("summary", {}, "As a table"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cosines as a table" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))));
}
