/** A browser on a ComfyUI server: what tests do in it, and what they read off it. */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const USUAL_PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/**
 * What the frontend itself logs: at every start, 1.35 at every step into a subgraph, and 1.58 of an event that comes while
 * it loads its extensions.
 */
const FRONTENDS_OWN =
  /^ComfyApp graph accessed before initialization|^Attempted to cleanup event listeners for graph|^Unknown message type bwcache/;

/** @returns {string|undefined} a Chromium, as CHROMIUM names it or where it usually is */
export function findChromium() {
  return [process.env.CHROMIUM, ...USUAL_PLACES].find((path) => path && existsSync(path));
}

/** Help in the user's language, which the frontend asks for first: English has no folder of its own. */
const TRANSLATED_HELP = /\/docs\/\w+\/en\.md$/;

let runs = 0;

/** TinyWan with one BWCache Apply and a report: a prompt in ComfyUI's API format. Each has a seed of
 * its own: ComfyUI does not run the same prompt twice. */
export function prompt({ steps = 20, size = 96, frames = 17, seed = ++runs, apply = {}, sampler = "euler" } = {}) {
  const settings = Object.fromEntries(Object.entries(apply).map(([name, value]) => [name === "mode" ? name : `mode.${name}`, value]));
  return {
    1: { class_type: "UNETLoader", inputs: { unet_name: "tinywan.safetensors", weight_dtype: "default" } },
    2: { class_type: "ModelSamplingSD3", inputs: { model: ["1", 0], shift: 8.0 } },
    3: { class_type: "BWCacheApply", inputs: { model: ["2", 0], mode: "forecast", ...settings } },
    4: { class_type: "TinyWords", inputs: { text: "red circle moving left" } },
    5: { class_type: "TinyWords", inputs: { text: "" } },
    6: { class_type: "EmptyHunyuanLatentVideo", inputs: { width: size, height: size, length: frames, batch_size: 1 } },
    7: {
      class_type: "KSampler",
      inputs: {
        model: ["3", 0], positive: ["4", 0], negative: ["5", 0], latent_image: ["6", 0], seed, steps, cfg: 3.0,
        sampler_name: sampler, scheduler: "simple", denoise: 1.0,
      },
    },
    8: { class_type: "BWCacheReport", inputs: { stats: ["3", 1], passthrough: ["7", 0] } },
  };
}

/**
 * @param {string} url of the server
 * @param {{settings?: object, width?: number, height?: number}} options settings: of the frontend, by id
 * @returns {Promise<Comfy>}
 */
export async function openComfy(url, { settings = {}, width = 1500, height = 900, sharpness = 1 } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "bwcache-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: findChromium(), headless: true, args: FLAGS, viewport: { width, height },
    deviceScaleFactor: sharpness,
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  try {
    const comfy = new Comfy(context.pages()[0] ?? (await context.newPage()), url, close);
    await comfy.configure({ "Comfy.TutorialCompleted": true, "Comfy.Release.Status": "what's new seen", ...settings });
    await comfy.load();
    return comfy;
  } catch (error) {
    await close();
    throw error;
  }
}

/** One page with ComfyUI open. */
class Comfy {
  constructor(page, url, close) {
    this.page = page;
    this.url = url;
    this.close = close;
    this.errors = [];
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && this.note(message));
  }

  /** Errors of the console, without what ComfyUI itself does not find on a fresh server. */
  note(message) {
    const { url } = message.location();
    const missing = /failed to load resource|content security policy/i.test(message.text());
    const ours = !missing || (url.includes("bwcache") && !TRANSLATED_HELP.test(url));
    if (ours && !FRONTENDS_OWN.test(message.text())) this.errors.push(`${message.text()} (${url})`);
  }

  /** Settings are the server's: they hold for the next load. */
  async configure(settings) {
    await fetch(`${this.url}/settings`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(settings),
    });
  }

  async load() {
    await this.page.goto(this.url, { waitUntil: "domcontentloaded" });
    await this.page.waitForFunction(() => window.LiteGraph?.registered_node_types?.BWCacheApply && window.app?.vueAppReady);
    await this.page.waitForTimeout(500);
  }

  /** Runs a function in the page. */
  run(then, argument) {
    return this.page.evaluate(then, argument);
  }

  /** Opens a prompt as a workflow, laid out, seen whole. */
  async openPrompt(given) {
    await this.page.evaluate(async (nodes) => {
      await window.app.loadApiJson(nodes, "test");
      const places = { 1: [40, 60], 2: [40, 190], 4: [40, 300], 5: [40, 410], 6: [40, 520], 3: [360, 60], 7: [760, 60], 8: [760, 360], 13: [360, 760], 17: [760, 1200], 18: [1160, 760] };
      for (const node of window.app.graph.nodes) if (places[node.id]) node.pos = places[node.id];
      await window.app.loadGraphData({ ...window.app.graph.serialize(), id: crypto.randomUUID() }); // as saved ones have
      window.app.canvas.ds.reset();
      window.app.canvas.ds.scale = Object.keys(nodes).length > 8 ? 0.6 : 0.9;
      window.app.canvas.setDirty(true, true);
    }, given);
    await this.settle();
  }

  /** Opens a workflow that is open in another tab, by its path, as a click on the tab does. */
  async openTab(path) {
    await this.page.locator(".workflow-tabs .p-togglebutton, .workflow-tabs [role=tab]").nth(
      await this.run((wanted) => window.app.extensionManager.workflow.openWorkflows.findIndex((w) => w.path === wanted), path),
    ).click();
    await this.page.mouse.move(5, 500); // a tab that is pointed at shows a preview over the graph
    await this.settle();
  }

  /**
   * Selects a node by a click on its title, and opens its help with the button that is above it then.
   * @returns {Promise<Locator>} the help page
   */
  async openHelp(id) {
    const [x, y] = await this.run((wanted) => {
      const { ds, canvas } = window.app.canvas;
      ds.offset[1] = 120; // room for the button
      const [left, top, width] = window.app.graph.getNodeById(wanted).getBounding();
      const box = canvas.getBoundingClientRect();
      return [box.left + (left + width / 2 + ds.offset[0]) * ds.scale, box.top + (top + 15 + ds.offset[1]) * ds.scale];
    }, id);
    await this.page.mouse.click(x, y);
    await this.page.getByTestId("info-button").click();
    const page = this.page.locator(".node-help-content");
    await page.waitFor();
    return page;
  }

  /** Closes the panel with the help. The frontend keeps it open over reloads otherwise. */
  async closeHelp() {
    await this.page.getByTestId("properties-panel").getByLabel("Toggle properties panel").click();
    await this.page.locator(".node-help-content").waitFor({ state: "hidden" });
    await this.settle();
  }

  async settle() {
    await this.page.waitForTimeout(400);
  }

  /** @returns {Promise<string>} id of the prompt that was queued from the page */
  async queue() {
    const answer = this.page.waitForResponse((response) => response.url().endsWith("/prompt") && response.request().method() === "POST");
    await this.page.evaluate(() => window.app.queuePrompt(0, 1));
    const reply = await (await answer).json();
    if (!reply.prompt_id) throw new Error(JSON.stringify(reply));
    return reply.prompt_id;
  }

  /** @returns {Promise<object>} the history entry of a prompt that has ended */
  async ended(id) {
    for (let tries = 0; tries < 600; tries++) {
      const history = await (await fetch(`${this.url}/history/${id}`)).json();
      if (history[id]) return history[id];
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`prompt ${id} did not end`);
  }

  /** Resolves once the first live view says this, if only for a moment: to be called before what makes it say so. */
  async waitForHeadline(text) {
    await this.page.evaluate((wanted) => new Promise((done, fail) => {
      const headline = document.querySelector(".bwcache-headline");
      const watch = new MutationObserver((changes) => {
        if (changes.some(({ addedNodes }) => [...addedNodes].some((node) => node.textContent === wanted))) done();
      });
      watch.observe(headline, { childList: true });
      setTimeout(() => fail(new Error(`60 s without "${wanted}", now it says "${headline.textContent}"`)), 60_000);
    }), text);
  }

  /** Waits until the n-th live view has drawn so many evaluations. */
  async waitForEvaluations(count, index = 0) {
    await this.page.waitForFunction(
      ([least, i]) => {
        const text = document.querySelectorAll(".bwcache-view .bwcache-progress")[i]?.textContent ?? "";
        return Number(text.split("/")[0]) > least;
      },
      [count, index], { timeout: 60_000, polling: 20 },
    );
  }

  /** @returns {Promise<object>} how many pixels of the n-th map are amber (reused) and blue (computed) */
  colours(index = 0) {
    return this.page.evaluate((i) => {
      const canvas = document.querySelectorAll(".bwcache-canvas")[i];
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const found = { amber: 0, blue: 0 };
      for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue, alpha] = data.slice(at, at + 4);
        if (alpha > 200 && red > 200 && blue < 110) found.amber++;
        if (alpha > 200 && blue > 90 && red < green && green < blue && blue - red > 40) found.blue++;
      }
      return found;
    }, index);
  }

  /** @returns {Promise<object>} what the n-th live view shows, by place in the document */
  view(index = 0) {
    return this.page.evaluate((i) => {
      const element = document.querySelectorAll(".bwcache-view")[i];
      if (!element) return null;
      const text = (name) => element.querySelector(name).textContent;
      const box = element.getBoundingClientRect();
      return {
        state: element.dataset.state, headline: text(".bwcache-headline"), progress: text(".bwcache-progress"),
        text: text(".bwcache-text"), width: box.width, height: box.height,
      };
    }, index);
  }

  /** @returns {Promise<string[]>} which of our views reach over the border of their node, and by how many pixels */
  spills() {
    return this.page.evaluate(() => {
      const { ds, canvas } = window.app.canvas;
      const page = canvas.getBoundingClientRect();
      const border = (node, view) => {
        const own = view.closest("[data-node-id]"); // Nodes 2.0
        if (own) return own.getBoundingClientRect();
        const [x, y, width, height] = node.getBounding();
        const [left, top] = [page.left + (x + ds.offset[0]) * ds.scale, page.top + (y + ds.offset[1]) * ds.scale];
        return { left, top, right: left + width * ds.scale, bottom: top + height * ds.scale };
      };
      return window.app.graph.nodes.flatMap((node) => {
        const view = node.widgets?.find(({ name }) => name === "bwcache_view")?.element;
        if (!view?.isConnected) return [];
        const [inner, outer] = [view.getBoundingClientRect(), border(node, view)];
        const over = [outer.left - inner.left, outer.top - inner.top, inner.right - outer.right, inner.bottom - outer.bottom];
        return Math.max(...over) > 1 ? [`${node.title} ${over.map(Math.round)}`] : [];
      });
    });
  }

  async waitForState(state, index = 0, timeout = 60_000) {
    await this.page.waitForFunction( // polled: frames are rare where the processor draws
      ([wanted, i]) => document.querySelectorAll(".bwcache-view")[i]?.dataset.state === wanted,
      [state, index], { timeout, polling: 50 },
    );
  }
}
