/**
 * The example workflows in a real browser on a real server, where all model files are, though empty. Run by dev.py, once per
 * ComfyUI: COMFYUI_PATH and COMFYUI_PYTHON. Those of model families are made for 0.33: an older one lacks some of their nodes.
 */

import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { openComfy } from "./page.mjs";
import { PACK, startServer } from "./server.mjs";

const { COMFYUI_PATH, COMFYUI_PYTHON } = process.env;
const FOLDER = new URL("../../../example_workflows/", import.meta.url);
const NAMES = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
const MADE_FOR = [0, 33];
const LEGIBLE = 0.6; // scale; below it the canvas draws no text
const IN_ALL = ["BWCache TinyWan.json", "BWCache Measure then render.json", "BWCache Calibrate.json"];

let server;
let comfy;
let newer;

/** The pack, the image of ComfyUI's own templates, and a file for each model. */
function install(folder) {
  symlinkSync(PACK, join(folder, "custom_nodes", "bwcache"), "junction");
  cpSync(join(COMFYUI_PATH, "input", "example.png"), join(folder, "input", "example.png"));
  for (const { directory, name } of NAMES.flatMap((file) => read(file).nodes.flatMap((node) => node.properties.models ?? []))) {
    mkdirSync(join(folder, "models", directory), { recursive: true });
    writeFileSync(join(folder, "models", directory, name), "");
  }
}

before(async () => {
  server = await startServer({ comfyui: COMFYUI_PATH, python: COMFYUI_PYTHON, install, packs: ["bwcache"] });
  comfy = await openComfy(server.url, { width: 1920, height: 1080 });
  const { system } = await (await fetch(`${server.url}/system_stats`)).json();
  const [major, minor] = system.comfyui_version.split(".").map(Number);
  newer = major > MADE_FOR[0] || minor >= MADE_FOR[1];
});

after(async () => {
  await comfy?.close();
  await server?.stop();
});

function read(name) {
  return JSON.parse(readFileSync(new URL(encodeURIComponent(name), FOLDER), "utf8"));
}

/** Opens a workflow, as the template browser does. */
async function open(name) {
  comfy.errors.length = 0;
  await comfy.run((given) => window.app.loadGraphData(given), read(name));
  await comfy.settle();
}

for (const name of NAMES) {
  test(`${name} opens without a red node, an overlap or a node too small, and large enough to read`, async (context) => {
    if (!newer && !IN_ALL.includes(name)) return context.skip("made for a newer ComfyUI");
    await open(name);
    const seen = await comfy.run(() => ({
      scale: window.app.canvas.ds.scale,
      nodes: window.app.graph.nodes.map((node) => ({
        type: node.type, known: node.type in window.LiteGraph.registered_node_types, broken: Boolean(node.has_errors),
        cramped: node.computeSize()[1] > node.size[1] + 1, box: [...node.getBounding()],
      })),
    }));
    const types = (nodes) => nodes.map((node) => node.type);
    assert.ok(seen.nodes.length > 5);
    assert.deepEqual(types(seen.nodes.filter((node) => !node.known || node.broken)), []);
    assert.deepEqual(types(seen.nodes.filter((node) => node.cramped)), []);
    const overlaps = seen.nodes.flatMap((one, i) => seen.nodes.slice(0, i).filter((other) => overlap(one.box, other.box)));
    assert.deepEqual(types(overlaps), []);
    assert.ok(seen.scale >= LEGIBLE, `it opens at ${seen.scale}`);
    assert.deepEqual(comfy.errors, []);
  });
}

function overlap([x, y, width, height], [left, top, w, h]) {
  return x < left + w && left < x + width && y < top + h && top < y + height;
}

test("a click on the box of the uncached run and Ctrl+M unmute it all", async (context) => {
  if (!newer) return context.skip("made for a newer ComfyUI");
  await open("BWCache Qwen-Image.json");
  const [x, y] = await comfy.run(() => {
    const { ds, canvas } = window.app.canvas;
    const [left, top] = window.app.graph.groups[0].pos;
    ds.offset[1] = 200 - top; // away from the panels at the lower edge
    const box = canvas.getBoundingClientRect();
    return [box.left + (left + 120 + ds.offset[0]) * ds.scale, box.top + (top + 20 + ds.offset[1]) * ds.scale];
  });
  const muted = () => comfy.run(() => window.app.graph.nodes.filter((node) => node.mode !== 0).map((node) => node.type));
  assert.deepEqual(await muted(), ["KSampler", "VAEDecode", "BWCacheCompare"]);
  await comfy.page.mouse.click(x, y);
  await comfy.page.keyboard.press("Control+m");
  await comfy.settle();
  assert.deepEqual(await muted(), []);
});
