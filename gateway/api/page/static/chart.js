// A line chart of ten minutes: a time axis, and a value axis that starts at zero.
import { el, svg } from "./dom.js";
import { drawn } from "./picture.js";

const HEIGHT = 132;
const NARROW = 260; // pixels: room for two labels below the axis, not three
const MAX_GAP_SECONDS = 30;
const LEFT = 44, RIGHT = 8, TOP = 8, BOTTOM = 20;

// `series` are { name, value(point), line }, with `line` a CSS class. A value is null if there is no data.
export class Chart {
  constructor({ id, title, about, series, format, least = 0, most = null, wide = false }) {
    Object.assign(this, { series, format, least, most });
    this.points = [];
    this.seconds = 600;
    this.now = el("p", { class: "now-values" });
    this.svg = svg("svg", { role: "img", "aria-label": title });
    this.box = el("div", { class: "chart-box" }, this.svg);
    drawn(this.box, () => this.draw());
    this.box.addEventListener("pointermove", (event) => { this.hover = event.clientX - this.box.getBoundingClientRect().left; this.draw(); });
    this.box.addEventListener("pointerleave", () => { this.hover = null; this.draw(); });
    this.node = el("section", { class: wide ? "card chart wide" : "card chart", id: `chart-${id}`, "aria-labelledby": `chart-${id}-title` },
      el("div", { class: "card-head" }, el("h2", { id: `chart-${id}-title`, title: about }, title)), this.now, this.box);
  }

  show(points, seconds) {
    Object.assign(this, { points, seconds });
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    if (!width) return;
    const end = this.points.at(-1)?.time ?? 0;
    const x = (time) => LEFT + (width - LEFT - RIGHT) * (1 - (end - time) / this.seconds);
    const highest = Math.max(...this.points.flatMap((point) => this.series.map((series) => series.value(point) ?? 0)), 0);
    const top = this.most ?? niceAbove(Math.max(highest, this.least));
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(value, top) / top);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const told = this.hovered(x) ?? this.points.at(-1);
    this.svg.replaceChildren(
      ...[0, 0.5, 1].map((part) => this.gridline(part * top, y(part * top), width)),
      ...[[600, "10 min ago"], ...(width < NARROW ? [] : [[300, "5 min"]]), [0, "now"]].map(([ago, words]) =>
        svg("text", { x: x(end - ago), y: HEIGHT - 4, "text-anchor": ago === 600 ? "start" : ago ? "middle" : "end" }, words)),
      ...(this.series.length === 1 ? [svg("path", { class: "area", d: path(this.points, this.series[0].value, x, y, y(0)) })] : []),
      ...this.series.map((series) => svg("path", { class: `line ${series.line}`, d: path(this.points, series.value, x, y) })),
      ...(this.hover != null && told ? [svg("line", { class: "cursor", x1: x(told.time), x2: x(told.time), y1: TOP, y2: HEIGHT - BOTTOM })] : []));
    this.tell(told, end);
  }

  gridline(value, y, width) {
    return svg("g", { class: "grid" }, svg("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y }), svg("text", { x: LEFT - 6, y, dy: "0.35em", "text-anchor": "end" }, this.format(value)));
  }

  hovered(x) {
    if (this.hover == null || !this.points.length) return null;
    return this.points.reduce((best, point) => (Math.abs(x(point.time) - this.hover) < Math.abs(x(best.time) - this.hover) ? point : best));
  }

  tell(point, end) {
    const values = this.series.map((series) => {
      const value = point ? series.value(point) : null;
      return el("span", {}, this.series.length > 1 && el("i", { class: `key ${series.line}` }), this.series.length > 1 && `${series.name} `, el("b", {}, value == null ? "–" : this.format(value)));
    });
    const ago = point && this.hover != null ? Math.round(end - point.time) : 0;
    this.now.replaceChildren(...values, ago ? el("span", { class: "muted" }, ago < 60 ? `${ago} s ago` : `${Math.round(ago / 60)} min ago`) : "");
  }
}

// A line through the points, broken where there is no data. With a `floor`: the area between the two.
function path(points, value, x, y, floor = null) {
  const runs = [];
  let before = -Infinity;
  for (const point of points) {
    const v = value(point);
    if (v != null && point.time - before <= MAX_GAP_SECONDS) runs.at(-1).push([x(point.time), y(v)]);
    else if (v != null) runs.push([[x(point.time), y(v)]]);
    before = v == null ? -Infinity : point.time;
  }
  const text = ([left, top]) => `${left.toFixed(1)} ${top.toFixed(1)}`;
  return runs.map((run) => {
    const line = `M${run.map(text).join("L")}`;
    return floor === null ? (run.length > 1 ? line : `${line}h0.1`) : `${line}V${floor}H${run[0][0].toFixed(1)}Z`;
  }).join("");
}

// Returns the next of 1, 2, 5, 10, 20 … at or above a value.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
