/** Order of quantized products of one row by several matrices (q/k/v, gate/up), so that their commands can run together (schedule/record.ts). Off: `wasm/together` in MLX_DISABLE. */
import type { ArrayDesc } from "../core/array.ts";
import type { Item } from "./plan.ts";

/** The row that an item multiplies by a packed matrix that is there already, on the CPU. */
function rowOf({ node, absorbed, rows, product }: Item): ArrayDesc | undefined {
  if (node.op.name !== "quantizedMatmul" || absorbed || rows || product || node.stream.device.type === "gpu") return undefined;
  const [x, ...packed] = node.inputs as [ArrayDesc, ...ArrayDesc[]];
  return x.size === x.shape[x.shape.length - 1] && packed.every((d) => d.storage !== undefined && d.node === undefined) ? x : undefined;
}

/** The same items; products of the same row come right after the first of them. Nothing else moves: a product needs only its row and what was there before. */
export function siblingsTogether(items: readonly Item[]): readonly Item[] {
  const groups = new Map<ArrayDesc, Item[]>();
  let more = false;
  for (const item of items) {
    const x = rowOf(item);
    const group = x && groups.get(x);
    if (group) more = group.push(item) > 1;
    else if (x) groups.set(x, [item]);
  }
  if (!more) return items;
  return items.flatMap((item) => {
    const x = rowOf(item);
    const group = x && groups.get(x);
    return group === undefined ? [item] : group[0] === item ? group : [];
  });
}
