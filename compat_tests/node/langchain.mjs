import { OpenAIEmbeddings } from "@langchain/openai";
import { speak, versionOf } from "./speaking.mjs";

await speak(versionOf("@langchain/openai"), async ({ baseURL, apiKey, model, input, options, timeout }) => {
  const { dimensions, encoding_format: encodingFormat } = options;
  const impatience = timeout && { timeout, maxRetries: 0 };
  const embeddings = new OpenAIEmbeddings({ apiKey, model, dimensions, encodingFormat, configuration: { baseURL }, ...impatience });
  return typeof input === "string" ? [await embeddings.embedQuery(input)] : embeddings.embedDocuments(input);
});
