// A client of the public API. The key is in a variable of this module only: not in storage, a cookie or a URL.
let key = "";

const facts = document.documentElement.dataset;
export const needsKey = facts.auth === "keys";
export const live = facts.live;
export const hasBatches = facts.batches === "on";
export const base = new URL("v1", document.baseURI).href;

export const hasKey = () => !needsKey || key !== "";
// Sends this key from now on. Returns the previous one.
export function useKey(text) {
  const before = key;
  key = text;
  return before;
}
export const keyEnd = () => (key ? key.slice(-2) : "");

// An error, classified by what to do about it: `kind` is key, wrong-key, forbidden, limit, quota, loading, busy, refused,
// broken or offline.
export class Trouble extends Error {
  constructor(kind, message, { seconds = null, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { kind, seconds, requestId });
  }
}

const KINDS = { 401: "wrong-key", 403: "forbidden", 429: "limit", 503: "busy" };

export async function models() {
  return (await (await ask("v1/models")).json()).data;
}

export async function figures(after) {
  return (await ask(`page/live?after=${after}`)).json();
}

export async function batches(limit, after) {
  return (await ask(`v1/batches?limit=${limit}${after ? `&after=${after}` : ""}`)).json();
}

export async function cancelBatch(id) {
  await ask(`v1/batches/${id}/cancel`, { method: "POST" });
}

// Saves a file's content as the browser saves downloads: the key cannot stand in a link.
export async function saved(id, name) {
  let content;
  const response = await ask(`v1/files/${id}/content`);
  try {
    content = URL.createObjectURL(await response.blob());
  } catch {
    throw offline();
  }
  Object.assign(document.createElement("a"), { href: content, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(content), 60000);
}

// Returns vectors as rows of Float32Array, and what the reply's headers say of it. The round trip ends with the last byte.
export async function embed({ model, texts, inputType }) {
  const started = performance.now();
  const response = await ask("v1/embeddings", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, input: texts, encoding_format: "base64", ...(inputType && { input_type: inputType }) }),
  });
  const reply = await bodyOf(response);
  const roundTrip = performance.now() - started;
  const { headers } = response;
  return {
    vectors: reply.data.map(({ embedding }) => decoded(embedding)),
    tokens: reply.usage.prompt_tokens,
    roundTrip,
    stages: stagesOf(headers.get("server-timing") ?? ""),
    cacheHits: numberIn(headers.get("x-gateway-cache")),
    longInputs: headers.get("x-gateway-long-inputs"),
    fingerprint: headers.get("x-gateway-fingerprint"),
  };
}

// Returns { index, score } of each text, the best first, with scores from 0 to 1.
export async function rerank({ model, query, texts }) {
  const started = performance.now();
  const response = await ask("v1/rerank", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, query, documents: texts }),
  });
  const reply = await bodyOf(response);
  return {
    results: reply.results.map(({ index, relevance_score: score }) => ({ index, score })),
    tokens: reply.usage.total_tokens,
    roundTrip: performance.now() - started,
    model,
  };
}

// Raw little-endian float32: every machine that runs a browser is little-endian.
export function decoded(base64) {
  if (typeof base64 !== "string") return Float32Array.from(base64);
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

export function stagesOf(header) {
  return [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, duration]) => ({ name, milliseconds: Number(duration) }));
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw offline();
  }
  if (!response.ok) throw await troubleOf(response);
  return response;
}

async function bodyOf(response) {
  try {
    return await response.json();
  } catch {
    throw offline();
  }
}

const offline = () => new Trouble("offline", "The server did not answer.");

async function troubleOf(response) {
  const { status, headers } = response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* not JSON of the gateway: a proxy's reply */ }
  let kind = KINDS[status] ?? (status < 500 ? "refused" : "broken");
  if (status === 401 && !key) kind = "key";
  if (error.code === "insufficient_quota") kind = "quota";
  if (error.code === "model_loading") kind = "loading";
  const seconds = headers.has("retry-after") ? Number(headers.get("retry-after")) : null;
  return new Trouble(kind, error.message ?? `It answered ${status}.`, { seconds, requestId: headers.get("x-request-id") ?? "" });
}

const numberIn = (header) => (header === null ? null : Number(/\d+/.exec(header)?.[0] ?? 0));
