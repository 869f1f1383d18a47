import { createOpenAI } from "@ai-sdk/openai";
import { embed, embedMany } from "ai";
import { speak, versionOf } from "./speaking.mjs";

await speak(versionOf("ai"), async ({ baseURL, apiKey, model: name, input, options, timeout }) => {
  const model = createOpenAI({ baseURL, apiKey }).embedding(name);
  const { dimensions } = options;
  const settings = {
    model,
    ...(dimensions && { providerOptions: { openai: { dimensions } } }),
    ...(timeout && { abortSignal: AbortSignal.timeout(timeout), maxRetries: 0 }),
  };
  if (typeof input === "string") return [(await embed({ ...settings, value: input })).embedding];
  return (await embedMany({ ...settings, values: input })).embeddings;
});
