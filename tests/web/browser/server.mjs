/** A ComfyUI server of its own: this pack, a model and nothing else, in a folder that goes with it. */

import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
export const PACK = resolve(HERE, "..", "..", "..");
const SECONDS_TO_START = 120;
/** Another frontend than the checkout's own: the folder `static` of an unpacked comfyui-frontend-package. */
const FRONTEND = process.env.BWCACHE_FRONTEND ? ["--front-end-root", process.env.BWCACHE_FRONTEND] : [];

export const MODEL = process.env.BWCACHE_TINYWAN ?? join(PACK, "zoo", "tinywan", "tinywan.safetensors");

function link(folder) {
  symlinkSync(PACK, join(folder, "custom_nodes", "bwcache"), "junction");
  symlinkSync(join(HERE, "words"), join(folder, "custom_nodes", "words"), "junction");
}

/**
 * @param {{comfyui: string, python: string, install?: (folder: string) => void, packs?: string[]}} host checkout and its
 *   interpreter; what puts packs into the custom_nodes of a folder, and their names
 * @returns {Promise<{url: string, log: () => string, stop: () => Promise<void>}>} ready to be opened
 */
export async function startServer({ comfyui, python, install = link, packs = ["bwcache", "words"] }) {
  const folder = mkdtempSync(join(tmpdir(), "bwcache-web-"));
  for (const name of ["custom_nodes", "models/diffusion_models", "input", "output", "temp", "user"]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  install(folder);
  cpSync(MODEL, join(folder, "models", "diffusion_models", "tinywan.safetensors"));
  const port = await freePort();
  const log = join(folder, "server.log");
  const server = spawn(python, [
    "main.py", "--cpu", "--listen", "127.0.0.1", "--port", String(port), "--base-directory", folder,
    "--disable-all-custom-nodes", "--whitelist-custom-nodes", ...packs, "--disable-auto-launch",
    "--disable-api-nodes", "--database-url", `sqlite:///${join(folder, "comfyui.db")}`, ...FRONTEND,
  ], {
    cwd: comfyui,
    detached: process.platform !== "win32", // a group of its own, so that stop() ends its children too
    stdio: ["ignore", openSync(log, "a"), openSync(log, "a")],
    env: { ...process.env, OMP_WAIT_POLICY: "passive" },
  });
  const ended = new Promise((done) => server.once("exit", done));
  const read = () => (existsSync(log) ? readFileSync(log, "utf8") : "");
  const stop = async () => {
    kill(server);
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  try {
    await answer(`${url}/system_stats`, server, read);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, log: read, stop };
}

function kill(server) {
  if (server.exitCode !== null || server.signalCode !== null) return;
  try {
    process.kill(process.platform === "win32" ? server.pid : -server.pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

async function freePort() {
  const probe = createServer();
  await new Promise((done) => probe.listen(0, "127.0.0.1", done));
  const { port } = probe.address();
  await new Promise((done) => probe.close(done));
  return port;
}

async function answer(url, server, log) {
  for (let tries = 0; tries < 4 * SECONDS_TO_START; tries++) {
    if (server.exitCode !== null) throw new Error(`ComfyUI ended before it answered:\n${log()}`);
    const response = await fetch(url).catch(() => null);
    if (response?.ok) return;
    await new Promise((done) => setTimeout(done, 250));
  }
  throw new Error(`ComfyUI did not answer within ${SECONDS_TO_START} s:\n${log()}`);
}
