/**
 * The live view in a real browser on a real server. Run by dev.py, once per ComfyUI: COMFYUI_PATH and COMFYUI_PYTHON.
 * BWCACHE_SHOTS: a folder for pictures of what was seen.
 */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";

const { COMFYUI_PATH, COMFYUI_PYTHON, BWCACHE_SHOTS } = process.env;
const LONG = { steps: 40, size: 160, apply: { speedup: 1.6 } }; // seconds: time to look
const EXAMPLE = new URL("../../../example_workflows/BWCache TinyWan.json", import.meta.url);
const CALIBRATE = new URL("../../../example_workflows/BWCache Calibrate.json", import.meta.url);
const HELP = new URL("../../../web/docs/BWCacheApply.md", import.meta.url);
const JAPANESE = new URL("../../../locales/ja/nodeDefs.json", import.meta.url);
const LINE = /^\d+ of (\d+) steps computed(, about [\d.]+x)?$/;

let server;
let comfy;

before(async () => {
  server = await startServer({ comfyui: COMFYUI_PATH, python: COMFYUI_PYTHON });
  comfy = await openComfy(server.url);
});

after(async () => {
  await comfy?.close();
  await server?.stop();
});

beforeEach(() => (comfy.errors.length = 0));

afterEach(async (context) => {
  await shoot(context.name);
  await fetch(`${server.url}/interrupt`, { method: "POST" });
  assert.deepEqual(comfy.errors, []);
});

async function shoot(name) {
  if (!BWCACHE_SHOTS) return;
  mkdirSync(BWCACHE_SHOTS, { recursive: true });
  await comfy.page.screenshot({ path: join(BWCACHE_SHOTS, `${name.replaceAll(/[^\w]+/g, "-")}.png`) });
}

/** Points at the strip or map of the live view, so far across. */
async function pointAt(share) {
  const box = await comfy.page.locator(".bwcache-canvas").boundingBox();
  await comfy.page.mouse.move(box.x + box.width * share, box.y + 8);
}

/** Sets a widget of BWCache Apply, as a user does. */
async function set(name, value) {
  await comfy.run(([wanted, chosen]) => {
    window.app.graph.getNodeById(3).widgets.find((widget) => widget.name === wanted).value = chosen;
  }, [name, value]);
}

/** A prompt with a comparison, too: every node that has a view. */
function everyView(options) {
  return { ...prompt(options), 9: { class_type: "BWCacheCompare", inputs: { reference: ["7", 0], other: ["8", 0], full_scale: 0.1 } } };
}

/** Values of a node's widgets by name, as a user sees them. */
function values(id) {
  return comfy.run((wanted) => {
    const { widgets } = window.app.graph.getNodeById(wanted);
    return Object.fromEntries(widgets.filter((w) => w.name !== "bwcache_view").map((w) => [w.name, w.value]));
  }, id);
}

test("at rest the view is there and takes no part in what is saved or queued", async () => {
  await comfy.openPrompt(prompt());
  const view = await comfy.view();
  assert.equal(view.state, "rest");
  assert.ok(view.width > 250 && view.height > 150, JSON.stringify(view));
  const [saved, queued] = await comfy.run(async () => {
    const { output } = await window.app.graphToPrompt();
    return [window.app.graph.serialize().nodes.find((node) => node.id === 3), output];
  });
  assert.equal(saved.widgets_values.length, Object.keys(await values(3)).length);
  assert.ok(!("bwcache_view" in queued[3].inputs));
});

test("a fresh node shows four inputs, and each mode its own", async () => {
  await comfy.openPrompt(prompt());
  assert.deepEqual(Object.keys(await values(3)), ["mode", "mode.speedup", "mode.threshold", "mode.plan"]);
  const shown = {
    "per block": ["threshold", "reuse_interval", "start_step", "end_step", "cache_device", "max_cache_mb"],
    paper: ["threshold", "reuse_interval", "start_step", "end_step", "monitor_every", "cache_device", "max_cache_mb"],
    forecast: ["speedup", "threshold", "plan"],
  };
  for (const [mode, names] of Object.entries(shown)) {
    await set("mode", mode);
    assert.deepEqual(Object.keys(await values(3)), ["mode", ...names.map((name) => `mode.${name}`)]);
  }
  await set("mode.plan", "custom");
  await comfy.settle();
  const custom = ["steps", "start_step", "end_step", "corrector"].map((name) => `mode.plan.${name}`);
  assert.deepEqual(Object.keys(await values(3)).slice(4), custom);
  assert.equal((await comfy.view()).state, "rest");
});

test("the plan is drawn before the first step, then what ran fills in, and the verdict is the report's", async () => {
  await comfy.openPrompt(prompt(LONG));
  assert.equal((await comfy.colours()).amber, 0);
  const planned = comfy.waitForHeadline("Plan: 25 of 40 steps computed");
  const id = await comfy.queue();
  await planned;
  await shoot("plan");
  await comfy.waitForEvaluations(6);
  await shoot("mid-run");
  assert.equal((await comfy.view()).state, "running");
  const early = await comfy.colours();
  assert.ok(early.blue > 100, JSON.stringify(early));
  await comfy.waitForState("done");
  await comfy.settle();
  const late = await comfy.colours();
  assert.ok(late.amber > 100 && late.blue > early.blue, JSON.stringify([early, late]));
  const { status, outputs } = await comfy.ended(id);
  assert.equal(status.status_str, "success");
  const { headline } = await comfy.view();
  assert.equal(headline.match(LINE)?.[1], "40", headline);
  const [computed] = headline.split(" ");
  assert.match(outputs[8].text.join(""), new RegExp(`^${computed} of 40 steps were computed`));
});

test("the report's text is on its node, with the plan", async () => {
  const text = await comfy.run(() => document.querySelector(".bwcache-report").textContent);
  assert.match(text, /of 40 steps were computed.*Plan: 0-/);
});

test("pointing at a step says what happened there", async () => {
  await pointAt(0.5);
  assert.match((await comfy.view()).text, /^step \d+: (reused|computed), /);
  await comfy.page.mouse.move(5, 5);
});

test("a run without the node clears what it showed, and the report passes on", async () => {
  await comfy.run(() => (window.app.graph.getNodeById(3).mode = 4)); // bypassed
  const { status, outputs } = await comfy.ended(await comfy.queue());
  assert.equal(status.status_str, "success");
  await comfy.waitForState("rest");
  assert.equal((await comfy.view()).headline, "No cache");
  assert.match(outputs[8].text.join(""), /^No cache on this run/);
  await shoot("bypassed");
  await comfy.run(() => (window.app.graph.getNodeById(3).mode = 0));
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
});

test("the properties panel lists no input for the view", async () => {
  const listed = await comfy.run(() => {
    const view = window.app.graph.getNodeById(3).widgets.find(({ name }) => name === "bwcache_view");
    return [view.options.hideInPanel, view.options.serialize, view.serialize];
  });
  assert.deepEqual(listed, [true, false, false]);
});

test("no view reaches over the border of its node, and a report shows all of its text", async () => {
  await comfy.openPrompt(everyView({ steps: 10 }));
  assert.deepEqual(await comfy.spills(), []);
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  await comfy.settle();
  assert.deepEqual(await comfy.spills(), []);
  const hidden = await comfy.run(() => {
    const { scrollHeight, clientHeight } = document.querySelector(".bwcache-report");
    return scrollHeight - clientHeight;
  });
  assert.ok(hidden <= 0, `${hidden} pixels`);
});

test("settings that cannot be are refused before anything is loaded, with one text", async () => {
  await comfy.openPrompt(prompt({ apply: { plan: "custom", "plan.start_step": 9, "plan.end_step": 3 } }));
  const queued = (await comfy.run(() => window.app.graphToPrompt())).output;
  const reply = await (await fetch(`${server.url}/prompt`, { method: "POST", body: JSON.stringify({ prompt: queued }) })).json();
  const [{ errors }] = Object.values(reply.node_errors);
  assert.deepEqual(errors.map(({ details }) => details), [
    "start_step 9 is after end_step 3, so no step could be reused. Lower start_step or raise end_step.",
  ]);
});

test("block modes show their map", async () => {
  await comfy.openPrompt(prompt({ steps: 16, apply: { mode: "per block", threshold: 0.08 } }));
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  await comfy.settle();
  assert.match((await comfy.view()).headline, /^\d+ % of blocks reused/);
  await pointAt(0.5);
  assert.match((await comfy.view()).text, /^step \d+, block \d+: (reused|computed)/);
  await comfy.page.mouse.move(5, 5);
  const { amber, blue } = await comfy.colours();
  assert.ok(amber > 100 && blue > 100, `${amber} ${blue}`);
});

test("a map is back after its workflow was loaded again", async () => {
  await comfy.openPrompt(prompt({ steps: 10 }));
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  const { headline } = await comfy.view();
  await comfy.run(() => window.app.loadGraphData(window.app.graph.serialize()));
  await comfy.settle();
  assert.equal((await comfy.view()).headline, headline);
});

test("a run that ComfyUI kept is shown again after the page was loaded anew", async () => {
  await comfy.openPrompt(prompt({ steps: 10 }));
  await comfy.run(() => {
    const seed = window.app.graph.getNodeById(7).widgets.find(({ name }) => name === "control_after_generate");
    seed.value = "fixed";
  });
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  const [{ headline }, saved] = [await comfy.view(), await comfy.run(() => window.app.graph.serialize())];
  await comfy.load();
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  await comfy.settle();
  assert.equal((await comfy.view()).state, "rest");
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  assert.equal((await comfy.view()).headline, headline);
});

test("a saved workflow has the same widget values after a reload of the page", async () => {
  await comfy.openPrompt(prompt({ apply: { plan: "custom", speedup: 2.5, "plan.steps": "0-3 5 8 12/20", "plan.start_step": 2 } }));
  await set("mode.plan.corrector", false);
  const [kept, saved] = [await values(3), await comfy.run(() => window.app.graph.serialize())];
  assert.equal(kept["mode.plan.steps"], "0-3 5 8 12/20");
  await comfy.load();
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  await comfy.settle();
  assert.deepEqual(await values(3), kept);
  assert.equal((await comfy.view()).state, "rest");
});

test("the example workflow opens with the values that it was saved with", async () => {
  const saved = JSON.parse(readFileSync(EXAMPLE, "utf8"));
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  await comfy.settle();
  const node = saved.nodes.find(({ type }) => type === "BWCacheApply");
  assert.deepEqual(Object.values(await values(node.id)), node.widgets_values);
  assert.equal((await comfy.view()).state, "rest");
});

test("a page that is loaded during a run shows the whole map in the end", async () => {
  await comfy.openPrompt(prompt({ ...LONG, steps: 70, apply: { speedup: 1 } })); // longer than a page takes to load
  const saved = await comfy.run(() => window.app.graph.serialize());
  const id = await comfy.queue();
  await comfy.waitForEvaluations(4);
  await comfy.load();
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  assert.equal((await comfy.ended(id)).status.status_str, "success");
  await comfy.waitForState("done");
  await comfy.settle();
  assert.match((await comfy.view()).headline, LINE);
  await pointAt(0.15);
  assert.match((await comfy.view()).text, /^step [01]: computed, /);
});

test("a run goes on without its node", async () => {
  await comfy.openPrompt(prompt(LONG));
  const id = await comfy.queue();
  await comfy.waitForEvaluations(3);
  await comfy.run(() => window.app.graph.remove(window.app.graph.getNodeById(3)));
  assert.equal((await comfy.ended(id)).status.status_str, "success");
  await comfy.settle();
  assert.equal(await comfy.view(), null);
});

test("a cancelled run says where it stopped", async () => {
  await comfy.openPrompt(prompt(LONG));
  await comfy.queue();
  await comfy.waitForEvaluations(3);
  await fetch(`${server.url}/interrupt`, { method: "POST" });
  await comfy.waitForState("done");
  assert.match((await comfy.view()).progress, /^stopped at \d+\/40$/);
});

test("another workflow's node of the same number stays at rest, and the map is back with its own", async () => {
  await comfy.openPrompt(prompt(LONG));
  const tab = await comfy.run(() => window.app.extensionManager.workflow.activeWorkflow.path);
  const id = await comfy.queue();
  await comfy.waitForEvaluations(3);
  await comfy.openPrompt(prompt());
  assert.equal((await comfy.ended(id)).status.status_str, "success");
  await comfy.settle();
  assert.equal((await comfy.view()).state, "rest");
  await comfy.openTab(tab);
  await comfy.waitForState("done");
  assert.match((await comfy.view()).headline, LINE);
});

test("two BWCache Apply nodes show a run each", async () => {
  const [first, second] = [prompt({ steps: 12 }), prompt({ steps: 9 })];
  for (const [id, node] of Object.entries({ 13: second[3], 17: second[7], 18: second[8] })) {
    const moved = Object.entries(node.inputs).map(([name, value]) => {
      const shared = !Array.isArray(value) || !["3", "7"].includes(value[0]);
      return [name, shared ? value : [`1${value[0]}`, value[1]]];
    });
    first[id] = { ...node, inputs: Object.fromEntries(moved) };
  }
  await comfy.openPrompt(first);
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done", 0);
  await comfy.waitForState("done", 1);
  const totals = [(await comfy.view(0)).headline, (await comfy.view(1)).headline].map((line) => line.match(LINE)?.[1]);
  assert.deepEqual(totals.sort(), ["12", "9"]);
});

test("the node's help page opens with all its text and pictures", async () => {
  await comfy.openPrompt(prompt());
  const page = await comfy.openHelp(3);
  const lines = readFileSync(HELP, "utf8").split("\n").filter((line) => line && !line.startsWith("|--"));
  const pictures = lines.filter((line) => line.startsWith("!["));
  const heading = page.getByRole("heading", { name: lines[0].replace("# ", ""), exact: true });
  await heading.waitFor();
  const shown = (await page.innerText()).replaceAll(/\s+/g, " ");
  const written = lines.filter((line) => !pictures.includes(line));
  for (const text of written) {
    const plain = text.replace(/^(#+|-) /, "").replaceAll(/[*`]/g, "").trim();
    assert.ok(shown.includes(plain), `${plain} is not in: ${shown}`);
  }
  const images = page.locator("img");
  assert.equal(await images.count(), pictures.length);
  for (const image of await images.all()) {
    await image.scrollIntoViewIfNeeded();
    await image.evaluate((img) => img.decode()); // fails for one that does not load
    const widths = await image.evaluate((img) => [img.naturalWidth, img.clientWidth]);
    assert.ok(Math.min(...widths) > 0, `${await image.getAttribute("src")}: ${widths}`);
  }
  await shoot("help page with pictures");
  await heading.scrollIntoViewIfNeeded();
  await shoot("help page");
  await comfy.closeHelp();
});

test("what was measured is used, and named, when the mode is set to forecast", async () => {
  await comfy.openPrompt(prompt({ steps: 12, apply: { mode: "measure" } }));
  for (const words of [/Measured on 1 run: two more prompts/, /Measured on 2 runs: one more prompt/]) {
    const { outputs } = await comfy.ended(await comfy.queue()); // each with a seed of its own
    assert.match(outputs[8].text.join(""), words);
  }
  await shoot("measured");
  await set("mode", "forecast");
  const { outputs } = await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  assert.match((await comfy.view()).headline, /^6 of 12 steps computed/);
  const told = outputs[8].text.join("");
  const [plan, file] = told.match(/Plan: ([\d -]+\/12@8) \(.*measured on 2 runs, last on \d{4}-\d\d-\d\d, (\w\S+\.json)/).slice(1);
  assert.ok(plan && file.startsWith("WanModel_12_euler"), told);
  assert.match(await comfy.run(() => document.querySelector(".bwcache-report").textContent), new RegExp(file));
  assert.equal(await comfy.page.locator(".bwcache-plans-row").count(), 3);
  const hidden = await comfy.run(() => {
    const { scrollHeight, clientHeight } = document.querySelector(".bwcache-report");
    return scrollHeight - clientHeight;
  });
  assert.ok(hidden <= 0, `${hidden} pixels of the report and its strips are cut off`);
  const reused = comfy.page.locator(".bwcache-plans-row").nth(1).locator("[data-kind=reused]");
  assert.equal(await reused.count(), 6);
  await reused.first().hover();
  assert.match(await comfy.page.locator(".bwcache-plans-text").textContent(), /^measured, step \d+: reused, expected error [\d.]+, sigma/);
  await comfy.page.mouse.move(5, 5);
});

test("BWCache Calibrate says beforehand what it will take, and its plan goes into BWCache Apply", async () => {
  const saved = JSON.parse(readFileSync(CALIBRATE, "utf8"));
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  await comfy.settle();
  const { id } = saved.nodes.find(({ type }) => type === "BWCacheCalibrate");
  const said = () => comfy.run(() => [...document.querySelectorAll(".bwcache-report")].map((view) => view.textContent).join("\n"));
  assert.match(await said(), /About 12\.0 times an uncached run/);
  await comfy.run((wanted) => {
    const { widgets } = window.app.graph.getNodeById(wanted);
    for (const [name, value] of Object.entries({ seeds: 1, trials: 1, speedups: "2" })) {
      const widget = widgets.find((each) => each.name === name);
      widget.value = value;
      widget.callback?.(value);
      widget.node?.onWidgetChanged?.(name, value, null, widget);
    }
  }, id);
  await comfy.settle();
  assert.match(await said(), /About 4\.0 times an uncached run/);
  for (let loaded = 0; loaded < 2; loaded++) {
    const { output } = await comfy.run(() => window.app.graphToPrompt());
    const apply = Object.values(output).find(({ class_type: type }) => type === "BWCacheApply");
    assert.deepEqual(apply.inputs["mode.plan.steps"], [String(id), 1], "the link is there, and after it was loaded again");
    await comfy.run(() => window.app.loadGraphData(window.app.graph.serialize()));
    await comfy.settle();
  }
  await comfy.run(() => window.app.canvas.ds.reset());
  const { status, outputs } = await comfy.ended(await comfy.queue());
  assert.equal(status.status_str, "success");
  await comfy.settle();
  assert.match(outputs[id].text.join(""), /^Chosen: 2x/);
  assert.match(await said(), /Chosen: 2x/);
});

test("names, the live view and help are in the user's language", async () => {
  await comfy.configure({ "Comfy.Locale": "ja" });
  await comfy.load();
  await comfy.openPrompt(prompt({ apply: { plan: "custom" } }));
  const labels = await comfy.run(() => window.app.graph.getNodeById(3).widgets.map(({ label }) => label).filter(Boolean));
  const { BWCacheApply } = JSON.parse(readFileSync(JAPANESE, "utf8"));
  const inputs = Object.entries(BWCacheApply.inputs).filter(([name]) => /^mode(_speedup|_threshold|_plan(_(?!list).*)?)?$/.test(name)); // list is another choice of plan
  assert.deepEqual(labels, inputs.map(([, { name }]) => name));
  await comfy.run(() => [3, 8].forEach((id) => window.app.graph.getNodeById(id).setSize([220, 500])));
  assert.equal((await comfy.view()).headline, "未実行");
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  assert.match((await comfy.view()).headline, /^10\/20 ステップを計算(、約 [\d.]+ 倍)?$/);
  assert.deepEqual(await comfy.spills(), []);
  await shoot("Japanese and narrow");
  const page = await comfy.openHelp(3);
  await page.getByRole("heading", { name: "BWCache 適用", exact: true }).waitFor();
  await shoot("Japanese");
  await comfy.configure({ "Comfy.Locale": "en" });
  await comfy.load();
  if (await comfy.page.getByTestId("properties-panel").count()) await comfy.closeHelp(); // 1.35 closes it by itself
});

test("the panel follows the theme", async () => {
  await comfy.openPrompt(prompt({ steps: 10 }));
  const panel = () => comfy.run(() => getComputedStyle(document.querySelector(".bwcache-view")).backgroundColor);
  const dark = await panel();
  await comfy.run(() => window.app.extensionManager.setting.set("Comfy.ColorPalette", "light"));
  await comfy.settle();
  assert.notEqual(await panel(), dark);
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  await comfy.settle();
  await shoot("light theme");
  assert.ok((await comfy.colours()).amber > 100);
  await comfy.run(() => window.app.extensionManager.setting.set("Comfy.ColorPalette", "dark"));
});

test("in Nodes 2.0", async () => {
  await comfy.configure({ "Comfy.VueNodes.Enabled": true });
  await comfy.load();
  await comfy.openPrompt(everyView({ steps: 10 }));
  await comfy.page.waitForSelector("[data-node-id='3'] .bwcache-view");
  assert.equal((await comfy.view()).state, "rest");
  assert.deepEqual(await comfy.spills(), []);
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  await comfy.settle();
  const { headline, width, height } = await comfy.view();
  assert.match(headline, LINE);
  const scale = await comfy.run(() => window.app.canvas.ds.scale);
  assert.ok(width > 280 * scale && height > 170 * scale, `${width} ${height}`);
  assert.deepEqual(await comfy.spills(), []);
  await comfy.run(() => window.app.graph.getNodeById(3).setSize([320, 400])); // as in the example workflow
  await comfy.settle();
  const cut = await comfy.run(() => {
    const line = document.querySelector(".bwcache-headline");
    line.textContent = "15 of 30 steps computed, about 2.0x"; // whatever this machine's speed is
    return line.scrollWidth - line.clientWidth;
  });
  assert.ok(cut <= 0, `the headline is cut by ${cut} pixels`);
  assert.ok((await comfy.colours()).amber > 100);
});
