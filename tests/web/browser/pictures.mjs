/**
 * Pictures of the live view for the docs: node pictures.mjs FOLDER, with COMFYUI_PATH and COMFYUI_PYTHON.
 * One node, at rest, with its plan, mid-run and done, dark and light, in the classic canvas and in Nodes 2.0.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";

const FOLDER = process.argv[2];
const RUN = { steps: 30, size: 160, frames: 33 };
const PER_BLOCK = { ...RUN, size: 128, apply: { mode: "per block", threshold: 0.08 } };
const MARGIN = 14;

/** The BWCache Apply node alone. */
async function shoot(comfy, name) {
  await comfy.page.mouse.move(5, 500);
  const clip = await comfy.run((margin) => {
    const { ds, canvas } = window.app.canvas;
    const node = window.app.graph.getNodeById(3);
    const [x, y, width, height] = node.getBounding();
    const box = canvas.getBoundingClientRect();
    return {
      x: box.left + (x + ds.offset[0]) * ds.scale - margin, y: box.top + (y + ds.offset[1]) * ds.scale - margin,
      width: width * ds.scale + 2 * margin, height: height * ds.scale + 2 * margin,
    };
  }, MARGIN);
  await comfy.page.screenshot({ path: join(FOLDER, `${name}.png`), clip });
}

async function open(comfy, options) {
  await comfy.openPrompt(prompt(options));
  await comfy.run(() => {
    window.app.canvas.ds.scale = 1;
    window.app.canvas.ds.offset = [-240, 70];
    window.app.canvas.setDirty(true, true);
  });
  await comfy.settle();
}

async function pictures(comfy, label) {
  await open(comfy, RUN);
  await shoot(comfy, `${label}-rest`);
  const id = await comfy.queue();
  await comfy.waitForHeadline("Plan: 15 of 30 steps computed");
  await shoot(comfy, `${label}-plan`);
  await comfy.waitForEvaluations(13);
  await shoot(comfy, `${label}-running`);
  await comfy.ended(id);
  await comfy.waitForState("done");
  await comfy.settle();
  await shoot(comfy, `${label}-done`);
}

mkdirSync(FOLDER, { recursive: true });
const server = await startServer({ comfyui: process.env.COMFYUI_PATH, python: process.env.COMFYUI_PYTHON });
let comfy;
try {
  const settings = { "Comfy.Minimap.Visible": false, "Comfy.NodeBadge.NodeSourceBadgeMode": "None" };
  comfy = await openComfy(server.url, { settings, sharpness: 2, width: 1200, height: 1000 });
  await pictures(comfy, "dark");
  await open(comfy, PER_BLOCK);
  await comfy.ended(await comfy.queue());
  await comfy.waitForState("done");
  await comfy.settle();
  await shoot(comfy, "dark-per-block");
  await comfy.configure({ "Comfy.ColorPalette": "light" });
  await comfy.load();
  await pictures(comfy, "light");
  await comfy.configure({ "Comfy.ColorPalette": "dark", "Comfy.VueNodes.Enabled": true });
  await comfy.load();
  await pictures(comfy, "nodes2");
} finally {
  await comfy?.close();
  await server.stop();
}
