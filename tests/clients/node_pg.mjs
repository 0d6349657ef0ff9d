// node-postgres with pg-cursor, pg-query-stream, pg-copy-streams, its pool and its pipeline mode: the steps
// of tests/clients.rs.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pipeline } from "node:stream/promises";

const require = createRequire(process.env.CLIENT_MODULES + "/");
const pg = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const copy = require("pg-copy-streams");

const [url, stranger] = process.argv.slice(2);
const one = async (client, sql, values) => Object.values((await client.query(sql, values)).rows[0])[0];
const sum = (values) => values.reduce((a, b) => a + Number(b), 0);

// Runs a statement that must be cancelled; returns its SQLSTATE. The driver sends a cancel from a client of
// its own; one that comes before the statement does nothing, so it is sent until one has hit.
async function repeatedlyCancel(client, sql) {
  let settled = null;
  const query = new pg.Query(sql, (error) => (settled = error?.code ?? "not cancelled"));
  client.query(query);
  while (settled === null) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (settled !== null) break;
    const canceller = new pg.Client(url);
    const over = new Promise((resolve) => canceller.connection.once("end", resolve));
    canceller.cancel(client, query);
    canceller.connection.on("error", () => {});
    await over;
  }
  return settled;
}

await assert.rejects(
  new pg.Client(url.replace(/sslrootcert=.*/, `sslrootcert=${stranger}`)).connect(),
  /self-signed certificate|unable to verify/,
);
const client = new pg.Client(url);
const notices = [];
client.on("notice", (notice) => notices.push(notice.message));
await client.connect();
assert(client.connection.stream.encrypted);
console.log("connected: verify-full, another certificate refused");

let rows = 0;
let total = 0;
for (let statement = 0; statement < 120; statement++) {
  for (let n = 1; n <= 6; n++) {
    const text = `select id + ${statement} * 16 + $1 as value from customers where id = $2`;
    const result = await client.query({ name: `statement ${statement}`, text, values: [n, n] });
    rows += 1;
    total += result.rows[0].value;
  }
}
console.log(`prepared: ${rows} rows, sum ${total}`);

await client.query("begin");
await client.query("insert into kept values ($1)", ["a committed"]);
await client.query("commit");
await client.query("begin");
await client.query("insert into kept values ($1)", ["rolled back"]);
await client.query("rollback");
const kept = (step) => one(client, "select count(*) from kept where step = $1", [step]);
console.log(`transactions: committed ${await kept("a committed")}, rolled back ${await kept("rolled back")}`);

const source = client.query(copy.from("COPY copied FROM STDIN"));
await pipeline(
  (function* () {
    for (let n = 1; n <= 500; n++) yield Buffer.from(`${n}\tname ${n}\n`);
  })(),
  source,
);
console.log("copied in:", source.rowCount);
let out = "";
for await (const chunk of client.query(copy.to("COPY approved_rows TO STDOUT"))) out += chunk;
const values = out.trim().split("\n");
console.log(`copied out: ${values.length} rows, sum ${sum(values)}`);

console.log("cancelled:", await repeatedlyCancel(client, "select pg_sleep(60)"));
console.log("withdrawn:", await repeatedlyCancel(client, "drop table ignored_rows"));

const approved = (await client.query("update approved_rows set n = n + $1 returning n", [1000])).rows.map((row) => row.n);
console.log(`approved: ${approved.length} rows, sum ${sum(approved)}`);
const notice = notices.at(-1).split(": ")[0];

await client.query("begin");
await client.query("insert into kept values ('b before')");
await client.query("savepoint s");
await client.query("drop table denied_rows").catch((error) => {
  assert.match(error.detail, /it is still needed/);
  console.log("denied:", error.code, error.message);
});
await client.query("rollback to savepoint s");
await client.query("insert into kept values ('c after')");
await client.query("commit");
console.log("notice:", notice);

const cursor = client.query(new Cursor("select id from customers where id > $1 order by id", [0]));
const read = [];
for (let some = await cursor.read(7); some.length > 0; some = await cursor.read(7)) read.push(...some.map((row) => row.id));
await cursor.close();
assert.equal(sum(read), 5050);
let streamed = 0;
for await (const row of client.query(new QueryStream("select id from customers", [], { batchSize: 9 }))) streamed += row.id;
assert.equal(streamed, 5050);

const pipelined = new pg.Client({ connectionString: url, pipeline: true });
await pipelined.connect();
const answers = await Promise.all(
  Array.from({ length: 50 }, (_, n) => pipelined.query({ name: "in a pipeline", text: "select $1::int as n", values: [n] })),
);
assert.deepEqual(answers.map((answer) => answer.rows[0].n), Array.from({ length: 50 }, (_, n) => n));
await pipelined.end();

const pool = new pg.Pool({ connectionString: url, max: 3 });
const pooled = await Promise.all(Array.from({ length: 20 }, (_, n) => pool.query("select $1::int as n", [n])));
assert.equal(sum(pooled.map((answer) => answer.rows[0].n)), 190);
await pool.end();

console.log("usable:", await one(client, "select count(*) from customers"));
await client.end();
