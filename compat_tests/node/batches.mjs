// openai-node's batches: OpenAI's own guide, step by step, and what each step gave, as one line of JSON.
import fs from "node:fs";
import { setTimeout } from "node:timers/promises";
import OpenAI from "openai";

const { base_url: baseURL, key: apiKey, path } = JSON.parse(fs.readFileSync(0, "utf8"));
const openai = new OpenAI({ baseURL, apiKey });

const file = await openai.files.create({ file: fs.createReadStream(path), purpose: "batch" });
const batch = await openai.batches.create({
  input_file_id: file.id,
  endpoint: "/v1/embeddings",
  completion_window: "24h",
  metadata: { description: "nightly eval job" },
});
let ended = batch;
while (["validating", "in_progress", "finalizing"].includes(ended.status)) {
  await setTimeout(100);
  ended = await openai.batches.retrieve(batch.id);
}
const listed = [];
for await (const each of openai.batches.list({ limit: 1 })) listed.push(each.id);
const refused = await openai.batches.cancel(batch.id).catch(({ status, constructor }) => ({ name: constructor.name, status }));
const output = await (await openai.files.content(ended.output_file_id)).text();
process.stdout.write(JSON.stringify({ batch, ended, listed, refused, output }));
