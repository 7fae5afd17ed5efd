/* page_test.js URL CHROMIUM FOLDER - run by page_test.py. */
"use strict";
const assert = require("node:assert");
const path = require("node:path");
const {chromium} = require("playwright-core");

const [url, executablePath, folder] = process.argv.slice(2);
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--no-proxy-server"];

const PATIENCE_MS = 60000; /* for what takes a moment on a machine that has nothing else to do */

const looks = [
  {name: "wide-light", viewport: {width: 1280, height: 800}, colorScheme: "light"},
  {name: "wide-dark", viewport: {width: 1280, height: 800}, colorScheme: "dark"},
  {name: "narrow-light", viewport: {width: 390, height: 800}, colorScheme: "light"},
  {name: "narrow-dark", viewport: {width: 390, height: 800}, colorScheme: "dark"},
];

/* Note how long the answer is, and whether it can be stopped, each time that something changes on the page. */
async function watchAnswers(page) {
  await page.addInitScript(() => {
    window.seen = [];
    const note = () => {
      const text = document.querySelector(".text.live");
      if (text) window.seen.push({length: text.textContent.length, stop: !document.getElementById("stop").hidden});
    };
    new MutationObserver(note).observe(document, {subtree: true, childList: true, characterData: true});
  });
}

/* Ask, wait for the whole answer, and return what the ticket says. */
async function ask(page, question) {
  await page.evaluate(() => { window.seen = []; });
  await page.fill("#input", question);
  await page.press("#input", "Enter");
  await page.waitForFunction(() => window.seen.length && !document.querySelector(".text.live"));
  const seen = await page.evaluate(() => window.seen), growing = seen.filter(each => each.length > 0);
  assert.ok(new Set(growing.map(each => each.length)).size > 10, "the answer came token by token");
  assert.ok(growing.every(each => each.stop), "there is a way to stop it while it streams");
  const ticket = await page.locator(".answer .ticket").last().innerText();
  for (const word of ["reused", "route", "first token", "queue", "load", "prefill", "first decode", "between tokens"])
    assert.ok(ticket.includes(word), `ticket has ${word}: ${ticket}`);
  return ticket;
}

/* The same once more in a new chat, until the cache is used: on a busy machine it may be computed instead. */
async function askAgain(page, question) {
  for (let i = 0; i < 10; i++) {
    await page.click("#clear");
    const ticket = await ask(page, question);
    if (reused(ticket) > 0) return;
  }
  assert.fail("a question that was asked before finds nothing in the cache");
}

/* The synthetic model may end an answer at once: let it go on to max_tokens, so that there is something to watch. */
async function neverEnding(page) {
  await page.route("**/v1/chat/completions", route =>
    route.continue({postData: JSON.stringify({...route.request().postDataJSON(), ignore_eos: true})}));
}

const reused = ticket => +/reused\s+(\d+) of/.exec(ticket)[1];

async function fits(page, what) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(over <= 0, `${what}: ${over} px too wide`);
}

/* Has anything been drawn on it? */
async function drawn(page, id) {
  return page.evaluate(name => {
    const canvas = document.getElementById(name);
    return canvas.width > 0 && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(v => v > 0);
  }, id);
}

async function look({name, viewport, colorScheme}, browser) {
  const context = await browser.newContext({viewport, colorScheme, deviceScaleFactor: 1.5});
  const page = await context.newPage(), failures = [];
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", error => failures.push(error.message));
  page.on("console", message => { if (message.type() === "error") failures.push(message.text()); });
  page.on("request", request => { if (!request.url().startsWith(url)) failures.push("fetched " + request.url()); });
  await neverEnding(page);
  await watchAnswers(page);
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  await page.waitForFunction(() => document.getElementById("health").textContent.includes("2 workers"));
  await page.screenshot({path: path.join(folder, name + "-empty.png")});
  await page.fill("#max", "80");
  const question = `What is KVCache? (${name}) ` + "Explain it as to a student who knows what attention is. ".repeat(6);
  const first = await ask(page, question);
  assert.strictEqual(reused(first), 0, first);
  await askAgain(page, question);
  await ask(page, "用中文再说一遍。");
  await fits(page, name + " chat");
  await page.screenshot({path: path.join(folder, name + "-chat.png")});
  if (viewport.width < 820) await page.click("#show-cluster");
  await page.waitForFunction(() => document.querySelectorAll("#workers .card").length === 2);
  await page.waitForFunction(() => document.querySelectorAll("#tiers .card").length === 1);
  await page.waitForFunction(() => last.requests.open === 0 && last.history.length > 2); /* the next status */
  for (const id of ["ttft", "tbt", "hits"]) assert.ok(await drawn(page, id), id + " is drawn");
  assert.match(await page.locator("#hit-rate").innerText(), /^[1-9][\d.]* %$/);
  await fits(page, name + " cluster");
  await page.screenshot({path: path.join(folder, name + "-cluster.png")});
  assert.deepStrictEqual(failures, []);
  await context.close();
  console.log(name, "ok");
}

/* An answer that is stopped in the middle, a new chat while one is coming, and an error that is shown. */
async function stopsAndFails(browser) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await neverEnding(page);
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  await page.fill("#max", "2000");
  await page.fill("#input", "Count for a very long time.");
  await page.click("#send");
  await page.waitForFunction(() => [...document.querySelectorAll(".text")].pop()?.textContent.length > 5);
  await page.click("#stop");
  await page.waitForFunction(() => !document.querySelector(".text.live"));
  await page.fill("#input", "Count once more.");
  await page.click("#send");
  await page.waitForFunction(() => [...document.querySelectorAll(".text")].pop()?.textContent.length > 5);
  await page.click("#clear"); /* while it is coming */
  await page.waitForFunction(() => document.getElementById("stop").hidden);
  assert.deepStrictEqual(await page.evaluate(() => messages), [], "a new chat knows nothing of the one before");
  await page.evaluate(() => { document.getElementById("max").value = "-1"; });
  await page.evaluate(() => ask("refuse this"));
  assert.match(await page.locator(".error").innerText(), /max_completion_tokens/);
  await page.screenshot({path: path.join(folder, "error.png")});
  console.log("stop, new chat and errors ok");
}

(async () => {
  const browser = await chromium.launch({executablePath, args}); /* makes a fresh profile of its own */
  try {
    for (const each of looks) await look(each, browser);
    await stopsAndFails(browser);
  } finally {
    await browser.close();
  }
})().catch(error => { console.error(error); process.exit(1); });
