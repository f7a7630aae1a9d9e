/**
 * Links into widgets of a mode, such as mode.plan.steps. When a workflow is loaded, the frontend makes these widgets anew
 * after it has laid the links, and the links are gone: here they are laid again.
 */

/** Links that a node was saved with, by node. Weak: a node that is gone takes them along. */
const saved = new WeakMap();

/** Call it when a node is created: it remembers what its configure() is handed. */
export function rememberLinks(node) {
  const configure = node.configure;
  node.configure = function (info, ...rest) {
    saved.set(this, linksOf(info, this.graph));
    return configure.call(this, info, ...rest);
  };
}

/** Call it when the graph is whole. @param {object} graph the root graph */
export function restoreLinks(graph) {
  for (const node of graph?.nodes ?? []) {
    for (const { name, from, slot } of saved.get(node) ?? []) {
      const place = node.inputs.findIndex((input) => input.name === name && input.link == null);
      if (place >= 0) node.graph.getNodeById(from)?.connect(slot, node, place);
    }
    saved.delete(node);
    if (node.subgraph) restoreLinks(node.subgraph);
  }
}

function linksOf(info, graph) {
  return (info.inputs ?? []).flatMap(({ name, link, widget }) => {
    const found = widget && link != null ? (graph?.getLink?.(link) ?? graph?.links?.[link]) : null;
    return found ? [{ name, from: found.origin_id, slot: found.origin_slot }] : [];
  });
}
