// A picture that is redrawn to its size, and explored with the pointer or arrow keys. All pictures show the selected texts.
import { onSchemeChange } from "./dom.js";

// The selected texts: one (j null), or two. Each picture listens for a change.
export class Pick {
  listeners = new Map();
  i = null;
  j = null;

  set(i, j = null) {
    if (i === this.i && j === this.j) return;
    Object.assign(this, { i, j });
    for (const listener of this.listeners.keys()) listener(this);
  }

  has(index) {
    return index === this.i || index === this.j;
  }

  // A picture that is drawn again first calls `drop(owner)` for its old listeners.
  onChange(listener, owner = null) {
    this.listeners.set(listener, owner);
  }

  drop(owner) {
    for (const [listener, its] of this.listeners) if (its === owner) this.listeners.delete(listener);
  }
}

const watched = new ResizeObserver((entries) => { for (const { target } of entries) target.draw?.(); });
onSchemeChange(() => { for (const node of document.querySelectorAll(".drawn")) node.draw?.(); });

// Calls `draw` once the node is in the page, and whenever its width or the colours change.
export function drawn(node, draw) {
  node.classList.add("drawn");
  node.draw = () => node.clientWidth && draw(node.clientWidth);
  watched.observe(node);
  return node;
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

// Calls `move(rows, columns)` for arrow keys, `jump("first" | "last")` for Home and End, and `leave` for Escape.
export function onArrows(node, { move, jump, leave }) {
  node.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (STEPS[event.key]) move(...STEPS[event.key]);
    else if (event.key === "Home") jump("first");
    else if (event.key === "End") jump("last");
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  });
}

const colours = getComputedStyle(document.documentElement);
export const colour = (name) => colours.getPropertyValue(`--${name}`).trim();
