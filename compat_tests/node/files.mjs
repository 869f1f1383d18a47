// openai-node's files: what its documentation shows, step by step, and what each step gave, as one line of JSON.
import { createReadStream, readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const { base_url: baseURL, key: apiKey, path } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL, apiKey });
const failure = async (work) => {
  try {
    await work;
  } catch ({ status, code, param, constructor }) {
    return { name: constructor.name, status, code, param };
  }
};

const streamed = await client.files.create({ file: createReadStream(path), purpose: "batch" });
const named = await client.files.create({
  file: await toFile(Buffer.from("{}\n"), "named.jsonl"),
  purpose: "user_data",
  expires_after: { anchor: "created_at", seconds: 3600 },
});
const fetched = await client.files.create({ file: await fetch("data:text/plain,abc"), purpose: "user_data" });
const listed = [];
for await (const file of client.files.list({ limit: 1, order: "asc" })) listed.push(file.id);
const said = {
  streamed,
  named,
  fetched: fetched.bytes,
  listed,
  made: [streamed.id, named.id, fetched.id],
  retrieved: await client.files.retrieve(streamed.id),
  content: await (await client.files.content(streamed.id)).text(),
  waited: (await client.files.waitForProcessing(streamed.id)).status,
  deleted: [await client.files.delete(streamed.id), await client.files.delete(named.id), await client.files.delete(fetched.id)],
  gone: await failure(client.files.retrieve(streamed.id)),
  refused: await failure(client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "nonsense" })),
};
process.stdout.write(JSON.stringify(said));
