/* page_test.js URL CHROMIUM FOLDER - run by page_test.py. */
"use strict";
const assert = require("node:assert");
const path = require("node:path");
const {chromium} = require("playwright-core");

const [url, executablePath, folder] = process.argv.slice(2);
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--no-proxy-server"];

const looks = [
  {name: "wide-light", viewport: {width: 1280, height: 800}, colorScheme: "light"},
  {name: "wide-dark", viewport: {width: 1280, height: 800}, colorScheme: "dark"},
  {name: "narrow-light", viewport: {width: 390, height: 800}, colorScheme: "light"},
  {name: "narrow-dark", viewport: {width: 390, height: 800}, colorScheme: "dark"},
];

/* Ask, see text grow while it is still coming, and return what the ticket says. */
async function ask(page, question) {
  await page.fill("#input", question);
  await page.press("#input", "Enter");
  const text = page.locator(".answer .text").last();
  await page.waitForFunction(() => [...document.querySelectorAll(".text")].pop()?.textContent.length > 10);
  const early = (await text.textContent()).length;
  assert.ok(await page.locator("#stop").isVisible(), "there is a way to stop it while it streams");
  await page.waitForFunction(() => !document.querySelector(".text.live"));
  assert.ok((await text.textContent()).length > early, "the answer came token by token");
  const ticket = await page.locator(".answer .ticket").last().innerText();
  for (const word of ["reused", "route", "first token", "queue", "load", "prefill", "first decode", "between tokens"])
    assert.ok(ticket.includes(word), `ticket has ${word}: ${ticket}`);
  return ticket;
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
  page.on("pageerror", error => failures.push(error.message));
  page.on("console", message => { if (message.type() === "error") failures.push(message.text()); });
  page.on("request", request => { if (!request.url().startsWith(url)) failures.push("fetched " + request.url()); });
  await neverEnding(page);
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  await page.waitForFunction(() => document.getElementById("health").textContent.includes("2 workers"));
  await page.screenshot({path: path.join(folder, name + "-empty.png")});
  await page.fill("#max", "80");
  const question = `What is KVCache? (${name}) ` + "Explain it as to a student who knows what attention is. ".repeat(6);
  const first = await ask(page, question);
  await page.click("#clear");
  const second = await ask(page, question);
  assert.strictEqual(reused(first), 0, first);
  assert.ok(reused(second) > 0, second);
  await ask(page, "用中文再说一遍。");
  await fits(page, name + " chat");
  await page.screenshot({path: path.join(folder, name + "-chat.png")});
  if (viewport.width < 820) await page.click("#show-cluster");
  await page.waitForFunction(() => document.querySelectorAll("#workers .card").length === 2);
  await page.waitForFunction(() => document.querySelectorAll("#tiers .card").length === 1);
  await page.waitForTimeout(1200); /* the next status */
  for (const id of ["ttft", "tbt", "hits"]) assert.ok(await drawn(page, id), id + " is drawn");
  assert.match(await page.locator("#hit-rate").innerText(), /^[1-9][\d.]* %$/);
  await fits(page, name + " cluster");
  await page.screenshot({path: path.join(folder, name + "-cluster.png")});
  assert.deepStrictEqual(failures, []);
  await context.close();
  console.log(name, "ok");
}

/* An answer that is stopped in the middle, and an error that is shown. */
async function stopsAndFails(browser) {
  const page = await (await browser.newContext()).newPage();
  await neverEnding(page);
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#model option").length === 1);
  await page.fill("#max", "2000");
  await page.fill("#input", "Count for a very long time.");
  await page.click("#send");
  await page.waitForFunction(() => [...document.querySelectorAll(".text")].pop()?.textContent.length > 5);
  await page.click("#stop");
  await page.waitForFunction(() => !document.querySelector(".text.live"));
  await page.evaluate(() => { document.getElementById("max").value = "-1"; });
  await page.evaluate(() => ask("refuse this"));
  assert.match(await page.locator(".error").innerText(), /max_completion_tokens/);
  console.log("stop and errors ok");
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
