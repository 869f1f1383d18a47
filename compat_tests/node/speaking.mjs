// What the programs of Node clients share, as clients/speaking.py of the Python ones: lines in, lines out.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

console.log = console.info = console.warn = console.error; // only answers stand on stdout

const write = (said) => process.stdout.write(JSON.stringify(said) + "\n");

export const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url), "utf8")).version;

// Asked for base64 by name, a client hands the text on as it came.
function numbers(vector) {
  if (typeof vector !== "string") return Array.from(vector);
  const bytes = Uint8Array.from(Buffer.from(vector, "base64"));
  return Array.from(new Float32Array(bytes.buffer));
}

export async function speak(version, embed) {
  write({ version });
  for await (const line of createInterface({ input: process.stdin })) {
    const { base_url: baseURL, key: apiKey, model, input, options = {}, timeout_seconds: seconds } = JSON.parse(line);
    const timeout = seconds == null ? undefined : Math.round(1000 * seconds); // then nothing is tried again
    try {
      const vectors = await embed({ baseURL, apiKey, model, input, options, timeout });
      write({ vectors: vectors.map(numbers) });
    } catch (error) {
      const name = error.constructor.name === "Error" || error.constructor.name === "DOMException" ? error.name : error.constructor.name;
      write({ error: { name, status: error.status ?? error.statusCode ?? null, message: error.message } });
    }
  }
}
