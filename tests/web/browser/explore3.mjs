import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";
const V = process.argv[2], tag = process.argv[3];
const root = process.env.HOME + "/" + V;
const server = await startServer({ comfyui: root, python: root + "/.venv/bin/python" });
let comfy;
const shot = (name) => comfy.page.screenshot({ path: `/tmp/shots/${V}-${tag}-${name}.png` });
try {
  comfy = await openComfy(server.url, {settings: {"Comfy.Minimap.Visible": false}});
  await comfy.openPrompt(prompt({apply: {plan: "custom", "plan.start_step": 9, "plan.end_step": 3}}));
  await comfy.run(() => window.app.queuePrompt(0, 1).catch(e => 0));
  await comfy.settle(); await comfy.settle();
  await shot("bad1");
  const b = comfy.page.getByText("View details");
  if (await b.count()) await b.first().click();
  await comfy.settle(); await comfy.settle();
  await shot("bad2");
  const r = await fetch(server.url + "/prompt", {method: "POST", body: JSON.stringify({prompt: {...prompt({apply: {plan: "custom", "plan.start_step": 9, "plan.end_step": 3}})}})});
  console.log(JSON.stringify(await r.json()).slice(0, 3000));
} catch (e) { console.log(e, server.log().slice(-3000)); } finally { await comfy?.close(); await server.stop(); }
