// ollama-js and LangChain.js's OllamaEmbeddings: one request as JSON on stdin, what they found as JSON on stdout.
import { readFileSync } from "node:fs";
import { OllamaEmbeddings } from "@langchain/ollama";
import { Ollama } from "ollama";

const { host, key, model, input, fitting } = JSON.parse(readFileSync(0, "utf8"));
const headers = { Authorization: `Bearer ${key}` };
const client = new Ollama({ host, headers });

const { embeddings } = await client.embed({ model, input });
const { embedding } = await client.embeddings({ model, prompt: input[0] });
const langchain = new OllamaEmbeddings({ model, baseUrl: host, headers });
const error = await client.embed({ model: "nothing", input }).catch((raised) => raised);

process.stdout.write(
  JSON.stringify({
    vectors: embeddings,
    old: embedding,
    langchain: await langchain.embedDocuments(fitting), // it sends `truncate: false`, and retries a 400 for minutes
    listed: (await client.list()).models.map((each) => each.name),
    running: (await client.ps()).models.map((each) => each.name),
    capabilities: (await client.show({ model })).capabilities,
    error: { name: error.name, status: error.status_code, message: error.message },
  }),
);
