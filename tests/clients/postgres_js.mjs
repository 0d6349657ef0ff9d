// postgres.js, which prepares every statement and pipelines by itself: the steps of tests/clients.rs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";

const require = createRequire(process.env.CLIENT_MODULES + "/");
const postgres = require("postgres");

const [url, stranger] = process.argv.slice(2);
const address = new URL(url);
const certificate = address.searchParams.get("sslrootcert");
// The driver knows no sslrootcert and would send it to the server.
address.search = "";
const sum = (values) => values.reduce((a, b) => a + Number(b), 0);
const notices = [];
const connect = (ca, max) =>
  postgres(address.href, {
    max,
    ssl: { ca: readFileSync(ca), rejectUnauthorized: true, servername: "localhost" },
    onnotice: (notice) => notices.push(notice.message),
  });

// Runs a statement that must be cancelled; returns its SQLSTATE. One that comes before the statement does
// nothing, so it is sent until one has hit.
async function repeatedlyCancel(query) {
  let settled = null;
  query.catch((error) => error.code).then((code) => (settled = code));
  while (settled === null) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (settled !== null) break;
    query.cancelled = null;
    await query.cancel();
  }
  return settled;
}

await assert.rejects(connect(stranger, 1)`select 1`, /self-signed certificate|unable to verify/);
const sql = connect(certificate, 1);
await sql`select 1`;
console.log("connected: verify-full, another certificate refused");

let rows = 0;
let total = 0;
for (let statement = 0; statement < 120; statement++) {
  const some = [1, 2, 3, 4, 5, 6].map(
    (n) => sql`select id + ${sql.unsafe(`${statement} * 16`)} + ${n}::int as value from customers where id = ${n}`,
  );
  for (const [row] of await Promise.all(some)) {
    rows += 1;
    total += row.value;
  }
}
console.log(`prepared: ${rows} rows, sum ${total}`);

await sql.begin((sql) => sql`insert into kept values (${"a committed"})`);
await sql
  .begin(async (sql) => {
    await sql`insert into kept values (${"rolled back"})`;
    throw new Error("enough");
  })
  .catch((error) => assert.equal(error.message, "enough"));
const kept = async (step) => (await sql`select count(*) from kept where step = ${step}`)[0].count;
console.log(`transactions: committed ${await kept("a committed")}, rolled back ${await kept("rolled back")}`);

await pipeline(
  Readable.from((function* () {
    for (let n = 1; n <= 500; n++) yield `${n}\tname ${n}\n`;
  })()),
  await sql`COPY copied FROM STDIN`.writable(),
);
console.log("copied in:", (await sql`select count(*) from copied`)[0].count);
let out = "";
for await (const chunk of await sql`COPY approved_rows TO STDOUT`.readable()) out += chunk;
const values = out.trim().split("\n");
console.log(`copied out: ${values.length} rows, sum ${sum(values)}`);

console.log("cancelled:", await repeatedlyCancel(sql`select pg_sleep(60)`));
console.log("withdrawn:", await repeatedlyCancel(sql`drop table ignored_rows`));

const approved = (await sql`update approved_rows set n = n + ${1000} returning n`).map((row) => row.n);
console.log(`approved: ${approved.length} rows, sum ${sum(approved)}`);
const notice = notices.at(-1).split(": ")[0];

await sql.begin(async (sql) => {
  await sql`insert into kept values ('b before')`;
  await sql
    .savepoint((sql) => sql`drop table denied_rows`)
    .catch((error) => {
      assert.match(error.detail, /it is still needed/);
      console.log("denied:", error.code, error.message);
    });
  await sql`insert into kept values ('c after')`;
});
console.log("notice:", notice);

const read = [];
await sql`select id from customers order by id`.cursor(7, (some) => void read.push(...some.map((row) => row.id)));
assert.equal(sum(read), 5050);
const heard = new Promise((resolve) => void sql.listen("jobs", resolve).then(() => sql.notify("jobs", "hello")));
assert.equal(await heard, "hello");
assert.deepEqual((await sql`select ${sql.array([1, 2, 3])}::int[] as a`)[0].a, [1, 2, 3]);

const pool = connect(certificate, 3);
const pooled = await Promise.all(Array.from({ length: 60 }, (_, n) => pool`select ${n}::int as n`));
assert.equal(sum(pooled.map(([row]) => row.n)), 1770);
await pool.end();
console.log("usable:", (await sql`select count(*) from customers`)[0].count);
await sql.end();
