// Code that works as it is, once the placeholder is replaced by a key. Every value is escaped as a string of its language.
export const PLACEHOLDER = "YOUR_API_KEY";

const text = (value) => JSON.stringify(value); // valid in Python and in JavaScript
const shell = (value) => `'${value.replaceAll("'", "'\\''")}'`;

// `base` ends in /v1. `dimensions` is null while it is unknown.
export const SNIPPETS = [
  {
    name: "curl",
    language: "sh",
    file: "Terminal",
    code: ({ base, model, key }) => `curl ${shell(`${base}/embeddings`)} \\
  -H ${shell(`Authorization: Bearer ${key}`)} \\
  -H 'Content-Type: application/json' \\
  -d ${shell(`{"model": ${text(model)}, "input": ["Hello, world", "Hallo, Welt"]}`)}`,
  },
  {
    name: "OpenAI, Python",
    language: "python",
    file: "embed.py",
    install: "pip install openai",
    code: ({ base, model, key }) => `from openai import OpenAI

client = OpenAI(
    base_url=${text(base)},
    api_key=${text(key)},
)

reply = client.embeddings.create(
    model=${text(model)},
    input=["Hello, world", "Hallo, Welt"],
)
for item in reply.data:
    print(item.index, len(item.embedding), item.embedding[:3])`,
  },
  {
    name: "OpenAI, Node",
    language: "js",
    install: "npm install openai",
    file: "embed.mjs",
    code: ({ base, model, key }) => `import OpenAI from "openai";

const client = new OpenAI({
  baseURL: ${text(base)},
  apiKey: ${text(key)},
});

const reply = await client.embeddings.create({
  model: ${text(model)},
  input: ["Hello, world", "Hallo, Welt"],
});
for (const { index, embedding } of reply.data) {
  console.log(index, embedding.length, embedding.slice(0, 3));
}`,
  },
  {
    name: "LangChain, Python",
    language: "python",
    file: "embed.py",
    install: "pip install langchain-openai",
    code: ({ base, model, key }) => `from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    base_url=${text(base)},
    api_key=${text(key)},
    model=${text(model)},
    check_embedding_ctx_length=False,  # sends texts, and needs no download of OpenAI's tokenizer
)

vectors = embeddings.embed_documents(["Hello, world", "Hallo, Welt"])
query = embeddings.embed_query("Good morning")
print(len(vectors), len(query), query[:3])`,
  },
  {
    name: "LangChain, JS",
    language: "js",
    install: "npm install @langchain/openai @langchain/core",
    file: "embed.mjs",
    code: ({ base, model, key }) => `import { OpenAIEmbeddings } from "@langchain/openai";

const embeddings = new OpenAIEmbeddings({
  apiKey: ${text(key)},
  model: ${text(model)},
  configuration: { baseURL: ${text(base)} },
});

const vectors = await embeddings.embedDocuments(["Hello, world", "Hallo, Welt"]);
const query = await embeddings.embedQuery("Good morning");
console.log(vectors.length, query.length, query.slice(0, 3));`,
  },
  {
    name: "LlamaIndex",
    language: "python",
    file: "embed.py",
    install: "pip install llama-index-embeddings-openai",
    code: ({ base, model, key }) => `from llama_index.embeddings.openai import OpenAIEmbedding

embedding = OpenAIEmbedding(
    api_base=${text(base)},
    api_key=${text(key)},
    model_name=${text(model)},
)

vectors = embedding.get_text_embedding_batch(["Hello, world", "Hallo, Welt"])
query = embedding.get_query_embedding("Good morning")
print(len(vectors), len(query), query[:3])`,
  },
  {
    name: "Vercel AI SDK",
    language: "js",
    install: "npm install ai @ai-sdk/openai",
    file: "embed.mjs",
    code: ({ base, model, key }) => `import { createOpenAI } from "@ai-sdk/openai";
import { cosineSimilarity, embedMany } from "ai";

const gateway = createOpenAI({
  baseURL: ${text(base)},
  apiKey: ${text(key)},
});

const { embeddings, usage } = await embedMany({
  model: gateway.embedding(${text(model)}),
  values: ["Hello, world", "Hallo, Welt"],
});
console.log(usage.tokens, cosineSimilarity(embeddings[0], embeddings[1]));`,
  },
  {
    name: "Elasticsearch",
    language: "python",
    file: "embed.py",
    install: "pip install elasticsearch openai",
    about: "Needs an Elasticsearch at the address in the code.",
    code: ({ base, model, key, dimensions }) => `from elasticsearch import Elasticsearch
from openai import OpenAI

elasticsearch = Elasticsearch("http://127.0.0.1:9200")
client = OpenAI(base_url=${text(base)}, api_key=${text(key)})


def embed(texts, kind):
    reply = client.embeddings.create(model=${text(model)}, input=texts, extra_body={"input_type": kind})
    return [item.embedding for item in reply.data]


texts = ["The parcel arrived late.", "The sun sets over the sea.", "I forgot my password."]
vectors = embed(texts, "document")

if not elasticsearch.indices.exists(index="notes"):
    vector = {"type": "dense_vector", "dims": ${dimensions ?? "len(vectors[0])"}, "similarity": "cosine"}
    elasticsearch.indices.create(index="notes", mappings={"properties": {"text": {"type": "text"}, "vector": vector}})
for number, (text, vector) in enumerate(zip(texts, vectors)):
    elasticsearch.index(index="notes", id=str(number), document={"text": text, "vector": vector})
elasticsearch.indices.refresh(index="notes")

(query,) = embed(["How do I log in again?"], "query")
found = elasticsearch.search(
    index="notes",
    knn={"field": "vector", "query_vector": query, "k": 3, "num_candidates": 10},
)
for hit in found["hits"]["hits"]:
    print(hit["_score"], hit["_source"]["text"])`,
  },
  {
    name: "pgvector",
    language: "python",
    file: "embed.py",
    install: "pip install 'psycopg[binary]' pgvector openai",
    about: "Needs a PostgreSQL with the extension pgvector at the address in the code.",
    code: ({ base, model, key, dimensions }) => `import numpy as np
import psycopg
from openai import OpenAI
from pgvector.psycopg import register_vector

DATABASE = "postgresql://postgres:postgres@127.0.0.1:5432/postgres"
client = OpenAI(base_url=${text(base)}, api_key=${text(key)})


def embed(texts, kind):
    reply = client.embeddings.create(model=${text(model)}, input=texts, extra_body={"input_type": kind})
    return [np.array(item.embedding, dtype=np.float32) for item in reply.data]


texts = ["The parcel arrived late.", "The sun sets over the sea.", "I forgot my password."]
vectors = embed(texts, "document")

with psycopg.connect(DATABASE) as database:
    database.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(database)
    database.execute(${dimensions ? `"CREATE TABLE IF NOT EXISTS notes (text text PRIMARY KEY, vector vector(${dimensions}))"` : 'f"CREATE TABLE IF NOT EXISTS notes (text text PRIMARY KEY, vector vector({len(vectors[0])}))"'})
    for text, vector in zip(texts, vectors):
        database.execute("INSERT INTO notes VALUES (%s, %s) ON CONFLICT DO NOTHING", (text, vector))

    (query,) = embed(["How do I log in again?"], "query")
    nearest = "SELECT text, 1 - (vector <=> %s) AS cosine FROM notes ORDER BY cosine DESC LIMIT 3"
    for text, cosine in database.execute(nearest, (query,)):
        print(round(cosine, 3), text)`,
  },
];
