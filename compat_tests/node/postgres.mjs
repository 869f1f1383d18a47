// A PostgreSQL with pgvector on a port of 127.0.0.1, in memory, until its standard input ends. Says "ready" once it listens.
import { PGlite } from "@electric-sql/pglite";
import { vector } from "@electric-sql/pglite-pgvector";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

const db = await PGlite.create({ extensions: { vector } });
const server = new PGLiteSocketServer({ db, port: Number(process.argv[2]), host: "127.0.0.1" });
await server.start();
console.log("ready");
process.stdin.resume();
process.stdin.on("end", async () => {
  await server.stop();
  await db.close();
  process.exit(0);
});
