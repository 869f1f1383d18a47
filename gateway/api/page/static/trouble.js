// Error messages: what went wrong, and what to do about it. The retry button counts down the seconds to wait.
import { el } from "./dom.js";

const code = (text) => el("code", {}, text);
const WORDS = {
  key: ["This server asks for an API key", () => ["Enter yours at the top of the page. On the server ", code("gateway keys create"), " makes one, and shows it once."]],
  "wrong-key": ["The server does not accept this key", () => ["It may be mistyped, expired or revoked. Enter another one; ", code("gateway keys create"), " on the server makes one."]],
  forbidden: ["This key may not do that", (trouble) => [trouble.message]],
  limit: ["Faster than this key may go", (trouble) => [trouble.message]],
  quota: ["This key’s budget is spent", (trouble) => [trouble.message, " Ask whoever runs this server for more, or wait until its period ends."]],
  loading: ["The model is still loading", () => ["At its very first start it is compiled, which takes about half a minute. Your texts stay here meanwhile."]],
  busy: ["The server has no room just now", (trouble) => [trouble.message]],
  refused: ["The server did not accept this", (trouble) => [trouble.message]],
  unfit: ["Nearly there", (trouble) => [trouble.message]],
  broken: ["Something went wrong on the server", (trouble) => [trouble.message, trouble.requestId && ` Whoever runs it finds it in the log as ${trouble.requestId}.`]],
  offline: ["The server cannot be reached", () => ["Is it still running, and is this machine connected to it? Your texts are still here."]],
};
const CANNOT_RETRY = new Set(["key", "wrong-key", "forbidden", "quota", "refused", "unfit"]);

// Shows a Trouble in an element. With `retry` there is a button that calls it.
export function show(place, trouble, retry) {
  const [title, words] = WORDS[trouble.kind] ?? WORDS.broken;
  const canRetry = retry && !CANNOT_RETRY.has(trouble.kind);
  const button = canRetry && el("button", { type: "button", class: "primary", onclick: retry }, "Try again");
  clear(place);
  place.append(
    el("div", { class: "trouble card", role: "alert", dataset: { kind: trouble.kind } },
      el("h2", {}, title),
      el("p", {}, ...words(trouble)),
      button && el("p", { class: "trouble-actions" }, button)),
  );
  if (button && trouble.seconds) countDown(button, trouble.seconds);
}

export function clear(place) {
  place.replaceChildren();
}

function countDown(button, seconds) {
  const until = performance.now() + 1000 * seconds;
  const tell = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0 && button.isConnected) setTimeout(tell, 200);
  };
  button.disabled = true;
  button.textContent = `Try again in ${seconds} s`;
  setTimeout(tell, 200);
}
