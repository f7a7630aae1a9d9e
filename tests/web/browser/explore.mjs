import { openComfy, prompt } from "./page.mjs";
import { startServer } from "./server.mjs";
const V = process.argv[2];
const root = process.env.HOME + "/" + V;
const server = await startServer({ comfyui: root, python: root + "/.venv/bin/python" });
let comfy;
try {
  for (const vue of [false, true]) {
  comfy = await openComfy(server.url, {settings: {"Comfy.VueNodes.Enabled": vue}});
  await comfy.openPrompt(prompt());
  const dump = () => comfy.run(() => window.app.graph.getNodeById(3).widgets.map(w => [w.name, w.value, w.label]));
  console.log(V, vue, JSON.stringify(await dump()));
  await comfy.page.screenshot({ path: `/tmp/shots/${V}-${vue}-rest.png` });
  await comfy.run(() => { const n = window.app.graph.getNodeById(3); const w = n.widgets.find(w => w.name === "mode.plan"); if (w) w.value = "custom"; });
  await comfy.settle();
  console.log(JSON.stringify(await dump()));
  await comfy.page.screenshot({ path: `/tmp/shots/${V}-${vue}-custom.png` });
  const saved = await comfy.run(() => { const n = window.app.graph.getNodeById(3); const w = n.widgets.find(w => w.name === "mode.plan.start_step"); if (w) w.value = 3; const s = n.widgets.find(w => w.name === "mode.plan.steps"); if (s) s.value = "0-3 5 7/9"; return window.app.graph.serialize(); });
  console.log("saved", JSON.stringify(saved.nodes.find(n=>n.id===3).widgets_values), JSON.stringify(saved.nodes.find(n=>n.id===3).inputs.map(i=>i.name)));
  await comfy.run((g) => window.app.loadGraphData(g), saved);
  await comfy.settle();
  console.log("reload", JSON.stringify(await dump()));
  console.log("api", JSON.stringify((await comfy.run(async () => (await window.app.graphToPrompt()).output))[3]));
  await comfy.run(() => { const n = window.app.graph.getNodeById(3); n.widgets.find(w => w.name === "mode").value = "paper"; });
  await comfy.settle();
  console.log("paper", JSON.stringify(await dump()));
  await comfy.page.screenshot({ path: `/tmp/shots/${V}-${vue}-paper.png` });
  await comfy.run(() => { const n = window.app.graph.getNodeById(3); n.widgets.find(w => w.name === "mode").value = "forecast"; });
  await comfy.settle();
  console.log("back", JSON.stringify(await dump()));
  console.log("errors", comfy.errors);
  await comfy.close();
  }
} finally { await server.stop(); }
