import OpenAI from "openai";
import { speak, versionOf } from "./speaking.mjs";

await speak(versionOf("openai"), async ({ baseURL, apiKey, model, input, options, timeout }) => {
  const client = new OpenAI({ baseURL, apiKey, ...(timeout && { timeout, maxRetries: 0 }) });
  const { data } = await client.embeddings.create({ model, input, ...options });
  return data.map((row) => row.embedding);
});
