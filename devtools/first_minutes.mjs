/**
 * A newcomer's first minutes, timed: git clone, start ComfyUI, open the template, press Run, read the report.
 *
 *   COMFYUI_PATH=... COMFYUI_PYTHON=... node devtools/first_minutes.mjs FOLDER
 *
 * Needs what the browser tests need. The checkout itself is left alone: the server has a base folder of its own. Pictures go
 * to FOLDER: first-open.png and first-run.png are those of the README.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";

import { openComfy } from "../tests/web/browser/page.mjs";
import { PACK, startServer } from "../tests/web/browser/server.mjs";

const FOLDER = resolve(process.argv[2] ?? "out/first-minutes");
const NAME = "comfyui-bwcache"; // the folder that a git clone makes
const SETTINGS = { "Comfy.Minimap.Visible": false, "Comfy.NodeBadge.NodeSourceBadgeMode": "None" };
const LIMIT = 120_000; // milliseconds

const began = Date.now();
const told = [];

function tell(what) {
  const seconds = ((Date.now() - began) / 1000).toFixed(1);
  told.push(`${seconds.padStart(6)} s  ${what}`);
  process.stdout.write(`${told.at(-1)}\n`);
}

function clone(base) {
  execFileSync("git", ["clone", "--quiet", PACK, join(base, "custom_nodes", NAME)], { stdio: "inherit" });
  tell("cloned");
}

/** Opens a template of ours as a user does: from the list of templates. */
async function openTemplate(page, name) {
  await page.locator(".side-bar-panel, .side-tool-bar-container").getByRole("button", { name: /templates/i }).click();
  await page.getByText(NAME, { exact: true }).last().click();
  await shoot(page, "first-templates");
  await page.getByText(name, { exact: true }).last().click();
  await page.waitForFunction(() => window.app.graph.nodes.some((node) => node.comfyClass === "BWCacheApply"));
}

async function shoot(page, name) {
  await page.waitForTimeout(700);
  await page.screenshot({ path: join(FOLDER, `${name}.png`) });
}

mkdirSync(FOLDER, { recursive: true });
const server = await startServer({
  comfyui: process.env.COMFYUI_PATH, python: process.env.COMFYUI_PYTHON, install: clone, packs: [NAME],
});
let comfy;
try {
  tell("ComfyUI answers");
  comfy = await openComfy(server.url, { settings: SETTINGS, width: 1920, height: 1080 });
  tell("the page is there");
  await openTemplate(comfy.page, "BWCache TinyWan");
  tell("the template is open");
  await shoot(comfy.page, "first-open");
  const id = await comfy.queue();
  await comfy.waitForState("done");
  tell("the cached run has ended");
  const { status } = await comfy.ended(id);
  if (status.status_str !== "success") throw new Error(JSON.stringify(status));
  const verdict = await comfy.run(() => document.querySelector(".bwcache-report .bwcache-verdict").textContent);
  tell(`the report says: ${verdict}`);
  await shoot(comfy.page, "first-run");
  if (Date.now() - began > LIMIT) throw new Error(`more than ${LIMIT / 1000} s`);
} finally {
  await comfy?.close();
  await server.stop();
}
