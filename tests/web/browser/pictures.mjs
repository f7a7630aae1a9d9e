/**
 * Pictures for README and docs: node pictures.mjs FOLDER, with COMFYUI_PATH and COMFYUI_PYTHON (one that has matplotlib).
 * The live view by its states, then every node and the help page after a run, dark and light, classic and in Nodes 2.0.
 */

import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";

const FOLDER = process.argv[2];
const RUN = { steps: 30, size: 208, frames: 33 }; // slow enough to be caught before its first step
const PER_BLOCK = { ...RUN, size: 128, apply: { mode: "per block", threshold: 0.08 } };
const MARGIN = 14;
const PLACE = [330, 80]; // of the node that is shown, in the window
const HELP = 640; // pixels of a help page: more than that is scrolled to
const LOOKS = [
  ["dark", { "Comfy.ColorPalette": "dark" }],
  ["light", { "Comfy.ColorPalette": "light" }],
  ["nodes2", { "Comfy.ColorPalette": "dark", "Comfy.VueNodes.Enabled": true }],
];

/** Puts a node, by its type, where pictures are taken. */
async function place(comfy, type) {
  await comfy.run(([wanted, [x, y]]) => {
    const { ds } = window.app.canvas;
    const [left, top] = window.app.graph.nodes.find((node) => node.comfyClass === wanted).getBounding();
    ds.scale = 1;
    ds.offset = [x - left, y - top];
    window.app.canvas.setDirty(true, true);
  }, [type, PLACE]);
  await comfy.page.mouse.move(5, 500);
  await comfy.settle();
}

/** One node alone, where it was placed. */
async function shoot(comfy, type, name) {
  const [width, height] = await comfy.run((wanted) => {
    const node = window.app.graph.nodes.find(({ comfyClass }) => comfyClass === wanted);
    const box = document.querySelector(`[data-node-id='${node.id}']`)?.getBoundingClientRect(); // Nodes 2.0
    return box ? [box.width, box.height] : [...node.getBounding()].slice(2);
  }, type);
  const [x, y] = PLACE.map((at) => at - MARGIN);
  const clip = { x, y, width: width + 2 * MARGIN, height: height + 2 * MARGIN };
  await comfy.page.screenshot({ path: join(FOLDER, `${name}.png`), clip });
}

async function placed(comfy, type, name) {
  await place(comfy, type);
  await shoot(comfy, type, name);
}

async function openExample(comfy, name) {
  const url = new URL(`../../../example_workflows/${name}.json`, import.meta.url);
  await comfy.run((graph) => window.app.loadGraphData(graph), JSON.parse(readFileSync(url, "utf8")));
  await comfy.settle();
}

async function runToEnd(comfy) {
  const { status } = await comfy.ended(await comfy.queue());
  if (status.status_str !== "success") throw new Error(JSON.stringify(status));
  await comfy.waitForState("done");
  await comfy.page.waitForTimeout(1500); // pictures load
}

/** The live view from its plan to its end. */
async function liveView(comfy) {
  await comfy.openPrompt(prompt(RUN));
  await place(comfy, "BWCacheApply");
  const planned = comfy.waitForHeadline("Plan: 15 of 30 steps computed");
  const id = await comfy.queue();
  await planned;
  await shoot(comfy, "BWCacheApply", "live-view-plan");
  await comfy.waitForEvaluations(13);
  await shoot(comfy, "BWCacheApply", "live-view-running");
  await comfy.ended(id);
  await comfy.waitForState("done");
  await comfy.settle();
  await shoot(comfy, "BWCacheApply", "live-view-done");
  await comfy.openPrompt(prompt(PER_BLOCK));
  await runToEnd(comfy);
  await placed(comfy, "BWCacheApply", "live-view-per-block");
}

/** Every node after a run, and the help page. */
async function everyNode(comfy, look) {
  await openExample(comfy, "BWCache TinyWan");
  await runToEnd(comfy);
  for (const name of ["Apply", "Report", "Compare"]) await placed(comfy, `BWCache${name}`, `${name.toLowerCase()}-${look}`);
  await openExample(comfy, "BWCache Calibrate");
  await runToEnd(comfy);
  await placed(comfy, "BWCacheCalibrate", `calibrate-${look}`);
  if (look === "nodes2") return; // the same page
  await comfy.openPrompt(prompt());
  const help = await comfy.openHelp(3);
  await comfy.settle();
  const { x, y, width } = await help.boundingBox();
  await comfy.page.screenshot({ path: join(FOLDER, `help-${look}.png`), clip: { x, y, width, height: HELP } });
  await comfy.closeHelp();
}

mkdirSync(FOLDER, { recursive: true });
const server = await startServer({ comfyui: process.env.COMFYUI_PATH, python: process.env.COMFYUI_PYTHON });
let comfy;
try {
  const settings = { "Comfy.Minimap.Visible": false, "Comfy.NodeBadge.NodeSourceBadgeMode": "None" };
  comfy = await openComfy(server.url, { settings, sharpness: 2, width: 1300, height: 1250 });
  await liveView(comfy);
  for (const [look, theme] of LOOKS) {
    await comfy.configure(theme);
    await comfy.load();
    await everyNode(comfy, look);
  }
} finally {
  await comfy?.close();
  await server.stop();
}
