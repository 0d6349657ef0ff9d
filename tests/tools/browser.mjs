// A browser that does what it is told: a command in JSON on each line of standard input, an answer on
// each line of standard output. The tests are in Rust and hold both ends, the browser and the desk.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [, , tools, executablePath] = process.argv;
const require = createRequire(`${tools}/package.json`);
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");
const { readFileSync } = await import("node:fs");

const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
  ],
});

let context;
let page;
let complaints = [];

async function fresh({ width = 1280, height = 900, scheme = "light", js = true, keep = false }) {
  const storageState = keep && context ? await context.storageState() : undefined;
  await context?.close();
  context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    javaScriptEnabled: js,
    storageState,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(30000);
  page = await context.newPage();
  listen(page);
}

// Whatever the browser complains about: errors of scripts, violations of the content security policy.
function listen(page) {
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
}

const commands = {
  fresh,
  goto: async ({ url }) => {
    const answer = await page.goto(url, { waitUntil: "load" });
    return answer?.status() ?? 0;
  },
  reload: async () => (await page.reload({ waitUntil: "load" }))?.status() ?? 0,
  click: async ({ selector }) => page.click(selector),
  // For buttons that lead to another page: the status of what it answered.
  submit: async ({ selector }) => {
    const [answer] = await Promise.all([
      page.waitForResponse((answer) => answer.request().isNavigationRequest() && ![302, 303, 307].includes(answer.status())),
      page.click(selector),
    ]);
    await page.waitForLoadState("load");
    return answer.status();
  },
  fill: async ({ selector, text }) => page.fill(selector, text),
  press: async ({ key }) => page.keyboard.press(key),
  text: async ({ selector }) => page.locator(selector).first().innerText(),
  content: async ({ selector }) => page.locator(selector).first().textContent(),
  texts: async ({ selector }) => page.locator(selector).allInnerTexts(),
  count: async ({ selector }) => page.locator(selector).count(),
  value: async ({ selector }) => page.locator(selector).first().inputValue(),
  attribute: async ({ selector, name }) => page.locator(selector).first().getAttribute(name),
  wait: async ({ selector }) => page.waitForSelector(selector).then(() => true),
  gone: async ({ selector }) => page.waitForSelector(selector, { state: "detached" }).then(() => true),
  evaluate: async ({ script }) => page.evaluate(script),
  url: async () => page.url(),
  title: async () => page.title(),
  cookies: async () => context.cookies(),
  complaints: async () => complaints.splice(0),
  screenshot: async ({ path, full = true }) => {
    await page.screenshot({ path, fullPage: full });
  },
  axe: async () => {
    // Evaluated by the debugger, which no content security policy stops.
    await page.evaluate(readFileSync(axe, "utf8"));
    const { violations } = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })");
    return violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map((n) => `  ${n.html}\n  ${n.failureSummary}`).join("\n")}`);
  },
};

await fresh({});
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await commands[command](rest)) ?? null };
  } catch (error) {
    answer = { error: `${command} ${JSON.stringify(rest)} at ${page.url()}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
