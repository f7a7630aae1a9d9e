import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";
const V = process.argv[2];
const root = process.env.HOME + "/" + V;
const server = await startServer({ comfyui: root, python: root + "/.venv/bin/python" });
let comfy;
const shot = (name) => comfy.page.screenshot({ path: `/tmp/shots/${V}-${name}.png` });
try {
  comfy = await openComfy(server.url, {settings: {"Comfy.Minimap.Visible": false}});
  await comfy.openPrompt(prompt({steps: 30, size: 160}));
  await comfy.page.evaluate(() => { window.seen = []; window.app.api.addEventListener("bwcache.step", e => window.seen.push(e.detail)); });
  let id = await comfy.queue();
  await comfy.waitForState("running");
  await shot("begun");
  await comfy.page.waitForFunction(() => (window.seen.at(-1)?.evaluation?.evaluation ?? 0) > 10, null, {polling: 20, timeout: 60000});
  await shot("mid");
  console.log((await comfy.ended(id)).status.status_str);
  await comfy.settle();
  await shot("done");
  console.log(JSON.stringify(await comfy.view()));
  console.log(JSON.stringify((await comfy.run(() => window.seen))[0]));
  console.log(JSON.stringify((await comfy.run(() => window.seen)).at(-1)).slice(0, 1500));
  const box = await comfy.page.locator(".bwcache-canvas").first().boundingBox();
  await comfy.page.mouse.move(box.x + box.width * 0.5, box.y + 10);
  console.log((await comfy.view()).text);
  // bad
  await comfy.run(() => { const n = window.app.graph.getNodeById(3); n.widgets.find(w => w.name === "mode.plan").value = "custom"; n.widgets.find(w => w.name === "mode.plan.start_step").value = 9; n.widgets.find(w => w.name === "mode.plan.end_step").value = 3; });
  await comfy.run(() => window.app.queuePrompt(0, 1).catch(e => 0));
  await comfy.settle(); await comfy.settle();
  await shot("bad");
  console.log(await comfy.run(() => document.body.innerText.slice(0, 1500)));
  console.log("errors", comfy.errors);
} catch (e) { console.log(e, server.log().slice(-3000)); } finally { await comfy?.close(); await server.stop(); }
