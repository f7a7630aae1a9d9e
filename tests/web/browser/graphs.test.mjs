/**
 * Graphs in which a node runs elsewhere or more often than where it is drawn: lists, subgraphs, group nodes, two browsers. In a
 * real browser on a real server. Run by dev.py, once per ComfyUI: COMFYUI_PATH and COMFYUI_PYTHON.
 */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";

const { COMFYUI_PATH, COMFYUI_PYTHON } = process.env;
const LONG = { steps: 30, size: 144, apply: { speedup: 1.5 } }; // seconds: time to look

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

afterEach(() => assert.deepEqual(comfy.errors, []));

/** Waits for a prompt that was queued. @returns {Promise<object>} its outputs by node id */
async function ended(page, id) {
  const { status, outputs } = await page.ended(id);
  assert.equal(status.status_str, "success", JSON.stringify(status));
  await page.settle();
  return outputs;
}

/** Queues what is open, and waits. */
async function run(page) {
  return ended(page, await page.queue());
}

/** The first lines on the first report, one for each text that it shows. */
function verdicts(page) {
  return page.run(() => [...document.querySelectorAll(".bwcache-report .bwcache-verdict")].map((line) => line.textContent));
}

/** Makes a subgraph of nodes in the root graph, as the menu does. @returns {Promise<number>} id of its node */
function intoSubgraph(...ids) {
  return comfy.run((wanted) => {
    const { graph, canvas } = window.app;
    canvas.selectItems(wanted.map((id) => graph.getNodeById(id)));
    return graph.convertToSubgraph(canvas.selectedItems).node.id;
  }, ids);
}

/** Opens the subgraph of a node in the graph that is open. */
async function enter(id) {
  await comfy.run((wanted) => {
    const host = window.app.canvas.graph.getNodeById(wanted);
    window.app.canvas.openSubgraph(host.subgraph, host);
  }, id);
  await comfy.settle();
}

/** Ids of the runs that a prompt's reports tell of. */
function toldOf(outputs) {
  return Object.values(outputs).flatMap((output) => (output.bwcache_run ?? []).map((shown) => shown.node_id));
}

test("a list of latents is told of once, with all its runs", async () => {
  const nodes = prompt({ steps: 10 });
  nodes[6].inputs.batch_size = 3;
  nodes[9] = { class_type: "RebatchLatents", inputs: { latents: ["6", 0], batch_size: 1 } };
  nodes[7].inputs.latent_image = ["9", 0];
  await comfy.openPrompt(nodes);
  await run(comfy);
  const text = await comfy.run(() => document.querySelector(".bwcache-report").textContent);
  assert.equal(text.match(/The newest of 3 runs, all in json: 15 of 30 model evaluations/g)?.length, 1, text);
  assert.match((await comfy.view()).headline, /^5 of 10 steps computed/);
});

test("a list of speed-ups is told of one by one, and the live view shows the last", async () => {
  const nodes = prompt({ steps: 10 });
  nodes[9] = { class_type: "TinySpeedups", inputs: {} };
  nodes[3].inputs["mode.speedup"] = ["9", 0];
  await comfy.openPrompt(nodes);
  await run(comfy);
  assert.deepEqual((await verdicts(comfy)).map((line) => line.slice(0, 13)), ["7 of 10 steps", "3 of 10 steps"]);
  assert.match((await comfy.view()).headline, /^3 of 10 steps computed/);
});

test("in a subgraph in a subgraph the live view and the report follow the run", async () => {
  await comfy.openPrompt(prompt(LONG));
  const inner = await intoSubgraph(3, 7);
  const outer = await intoSubgraph(inner, 8);
  const id = await comfy.queue();
  await enter(outer);
  await enter(inner);
  await comfy.waitForEvaluations(6);
  assert.equal((await comfy.view()).state, "running");
  assert.deepEqual(toldOf(await ended(comfy, id)), [`${outer}:${inner}:3`]);
  await comfy.waitForState("done");
  const [computed] = (await comfy.view()).headline.split(" ");
  await comfy.run(() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph.rootGraph));
  await enter(outer);
  assert.match((await verdicts(comfy))[0], new RegExp(`^${computed} of 30 steps were computed`));
});

test("a subgraph that is bypassed clears what was shown in it", async () => {
  await comfy.openPrompt(prompt({ steps: 10 }));
  const host = await intoSubgraph(3);
  assert.deepEqual(toldOf(await run(comfy)), [`${host}:3`]);
  await enter(host);
  assert.equal((await comfy.view()).state, "done");
  await comfy.run((id) => {
    window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph.rootGraph);
    window.app.graph.getNodeById(id).mode = 4;
  }, host);
  await run(comfy);
  assert.match((await verdicts(comfy))[0], /^No cache on this run/);
  await enter(host);
  assert.equal((await comfy.view()).state, "rest");
});

/** A workflow with a node of an older frontend's kind: a group of one, which newer ones make a subgraph of. */
function inGroupNode(saved, id) {
  const [node] = saved.nodes.filter((each) => each.id == id);
  const bare = (slots) => slots.map(({ link, links, ...slot }) => slot);
  const grouped = { ...node, id: -1, index: 0, inputs: bare(node.inputs), outputs: bare(node.outputs) };
  const links = [[null, 0, 0, 0, 1, "MODEL"]];
  const external = node.outputs.map(({ type }, slot) => [0, slot, type]);
  saved.extra = { ...saved.extra, groupNodes: { one: { nodes: [grouped], links, external } } };
  Object.assign(node, { type: "workflow>one", properties: {}, inputs: node.inputs.filter(({ widget }) => !widget) });
  return saved;
}

test("a group node of an older frontend samples with the cache, and its report is right", async () => {
  await comfy.openPrompt(prompt({ steps: 10 }));
  const saved = inGroupNode(await comfy.run(() => window.app.graph.serialize()), 3);
  await comfy.run((graph) => window.app.loadGraphData(graph), saved);
  await comfy.settle();
  assert.equal(await comfy.run(() => window.app.graph.nodes.some(({ type }) => type === "BWCacheApply")), false);
  const outputs = await run(comfy);
  assert.match((await verdicts(comfy))[0], /^5 of 10 steps were computed/);
  const [[host, node]] = toldOf(outputs).map((id) => id.split(":"));
  if (!(await comfy.run((id) => Boolean(window.app.graph.getNodeById(id).subgraph), host))) return; // 1.35: it has no inside
  await enter(host);
  assert.ok(node && (await comfy.view()).state === "done");
});

test("two browsers see a run each, and nothing of the other's", async () => {
  const other = await openComfy(server.url);
  try {
    await comfy.openPrompt(prompt({ steps: 12 }));
    await other.openPrompt(prompt({ steps: 9, apply: { speedup: 1.5 } }));
    const queued = [await comfy.queue(), await other.queue()];
    await ended(comfy, queued[0]);
    await ended(other, queued[1]);
    for (const [page, line] of [[comfy, /^6 of 12 steps/], [other, /^\d of 9 steps/]]) {
      assert.match((await page.view()).headline, line);
      assert.match((await verdicts(page))[0], line);
    }
    const saved = await comfy.run(() => window.app.graph.serialize());
    await other.run((graph) => window.app.loadGraphData(graph), saved); // the same workflow, so the same ids
    await other.settle();
    await run(comfy);
    assert.equal((await other.view()).state, "rest");
    assert.deepEqual(other.errors, []);
  } finally {
    await other.close();
  }
});
