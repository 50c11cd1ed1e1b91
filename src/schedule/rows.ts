/**
 * Row groups on a tape: reductions of rows together with the elementwise ops that make what is reduced, and with those that use the results, so that the elements pass
 * through memory once. What the ops are is said by their records (`Op.rows`, `Op.expr`, `Op.view`); here is only how they fit together.
 */
import { ArrayDesc, type View } from "../core/array.ts";
import type { Dtype } from "../core/dtype.ts";
import { type Expr, type Value, expr } from "../core/expr.ts";
import type { Node, RowRule, RowScope } from "../core/op.ts";
import { type Shape, rowStrides, sameShape, sizeOf } from "../core/shape.ts";
import type { GroupInput } from "../codegen/elementwise.ts";
import type { RowGroup, RowOutput, RowReduce } from "../codegen/rows.ts";
import { type Switches, columnsOpen, rowsOpen } from "./gate.ts";
import { type GrowRows, type Item, type JoinProduct, type RowSpace, fusible, mostNodes, mostOperands, mostOutputs } from "./plan.ts";
import { columnsFit, heldShape, keptStrides, leadOf, orderOf, overSpace, reducedSize } from "./spaces.ts";

/** Whether an array of a group holds elements of the space, or one element per row. */
type Role = "element" | "row";

/** True for the shapes that reductions of the rows have: row dimensions dropped, or of size 1. */
function isRowShape(shape: Shape, space: RowSpace): boolean {
  const lead = leadOf(space);
  return sameShape(shape, lead) || sameShape(shape, heldShape(space)) || (lead.length === 0 && sizeOf(shape) === 1);
}
/** True when an array of this shape gives, broadcast to the space, one element to each row. */
function broadcastsByRow(shape: Shape, space: RowSpace): boolean {
  const missing = space.shape.length - shape.length;
  return missing >= 0 && sameShape([...new Array<number>(missing).fill(1), ...shape], heldShape(space));
}
/** The space of an op on rows. */
function spaceOf(node: Node): RowSpace | undefined {
  const x = node.inputs[0] as ArrayDesc;
  const form = node.outputs.length === 1 && x !== undefined && x.size > 0 ? node.op.rows : undefined;
  const rank = form?.span(x, node.params, node.inputs);
  if (rank !== undefined) return { shape: x.shape, rank };
  const axes = form?.axes?.(x, node.params);
  return axes && { shape: x.shape, rank: axes.length, axes };
}
const noAxes: readonly number[] = [];
const sameSpace = (a: RowSpace | undefined, b: RowSpace): boolean => a !== undefined && a.rank === b.rank && sameShape(a.shape, b.shape) && sameShape(a.axes ?? noAxes, b.axes ?? noAxes);

const dense = (d: ArrayDesc): View => ({ shape: d.shape, dtype: d.dtype, size: d.size, strides: rowStrides(d.shape), offset: 0, contiguous: true });
/** The role of a view's result when its source holds one element per row, if it has one. */
function roleOfView(node: Node, space: RowSpace): Role | undefined {
  const from = node.inputs[0] as ArrayDesc;
  const to = node.outputs[0] as ArrayDesc;
  if (!isRowShape(from.shape, space) || node.inputs.length !== 1) return undefined;
  const layout = node.op.view?.(dense(from), node.params);
  if (layout?.offset !== 0) return undefined;
  const matches = (strides: Shape): boolean => layout.strides.every((s, i) => s === strides[i] || to.shape[i] === 1);
  if (sameShape(to.shape, space.shape)) return matches(overSpace(space, rowStrides(leadOf(space)))) ? "element" : undefined;
  return isRowShape(to.shape, space) && to.size === from.size && matches(rowStrides(to.shape)) ? "row" : undefined;
}
/** The role that an input has for a node of the group: what it must be to be computed in the group. */
function roleOfInput(node: Node, d: ArrayDesc, role: Role, space: RowSpace): Role | undefined {
  if (node.op.view) return "row";
  if (role === "row" && !node.op.rows) return sameShape(d.shape, (node.outputs[0] as ArrayDesc).shape) ? "row" : undefined;
  return sameShape(d.shape, space.shape) ? "element" : broadcastsByRow(d.shape, space) ? "row" : undefined;
}
/** The role of a node's result, as seen from the space alone. */
function roleOfNode(node: Node, space: RowSpace): Role | undefined {
  if (node.outputs.length !== 1) return undefined;
  if (node.op.view) return roleOfView(node, space);
  if (node.op.rows && sameSpace(spaceOf(node), space)) return node.op.rows.perRow ? "row" : "element";
  if (!fusible(node)) return undefined;
  const { shape } = node.outputs[0] as ArrayDesc;
  return sameShape(shape, space.shape) ? "element" : isRowShape(shape, space) ? "row" : undefined;
}

/** How far to look for an op on rows above an elementwise one. */
const mostSteps = 24;
const mostSpaces = 2;
/** Spaces of the ops on rows that are near above a node. */
function spacesAbove(root: Node): RowSpace[] {
  const own = root.op.rows ? spaceOf(root) : undefined;
  if (root.op.rows) return own ? [own] : [];
  if (!fusible(root)) return [];
  const found: RowSpace[] = [];
  const seen = new Set<Node>([root]);
  for (const node of seen) {
    for (const { node: p, storage } of node.inputs) {
      if (!p || storage || seen.has(p) || seen.size >= mostSteps) continue;
      if (p.op.rows) {
        const space = spaceOf(p);
        if (space && !found.some((s) => sameSpace(s, space)) && found.push(space) >= mostSpaces) return found;
        if (p.op.rows.perRow) seen.add(p);
      } else if (fusible(p) || p.op.view) seen.add(p);
    }
  }
  return found;
}

/** What makes row groups of a tape where generated kernels for them may run. A sum that `join` has a product's kernel make stays with the product: a pass less. */
export function rowsGrower(switches: Switches, join?: JoinProduct): GrowRows | undefined {
  const rows = { cpu: rowsOpen(switches, "wasm"), gpu: rowsOpen(switches, "vulkan") };
  const columns = { cpu: columnsOpen(switches, "wasm"), gpu: columnsOpen(switches, "vulkan") };
  if (!rows.cpu && !rows.gpu && !columns.cpu && !columns.gpu) return undefined;
  return (item, gone) => {
    const { type } = item.node.stream.device;
    return growRows(item, gone, (space) => (space.axes ? columns[type] && columnsFit(space) : rows[type]), join);
  };
}
/** Turns the item into a row group when its node is the end of one that is worth it. */
function growRows(item: Item, gone: Set<Node>, open: (space: RowSpace) => boolean, join: JoinProduct | undefined): boolean {
  for (const space of spacesAbove(item.node)) {
    if (!open(space)) continue;
    const role = roleOfNode(item.node, space);
    if (role === undefined || item.node.op.view) continue;
    const trial = new Trial(item.node, role, space, gone, join);
    if (!trial.worth) continue;
    trial.settle(item);
    return true;
  }
  return false;
}

/** A row group that grows upwards from its last node; the graph is left as it is until it is settled. */
class Trial {
  private readonly roles = new Map<Node, Role>();
  private readonly stored: Node[] = [];
  /** Reads by nodes of the group. */
  private readonly reads = new Map<ArrayDesc, number>();
  private readonly leaves = new Set<ArrayDesc>();
  /** Arrays that nodes of the group read in another way than their own role gives. */
  private readonly blocked = new Set<ArrayDesc>();
  private readonly root: Node;
  private readonly space: RowSpace;
  private readonly gone: ReadonlySet<Node>;
  private readonly join: JoinProduct | undefined;
  /** Asks about another trial; asks no further. */
  private readonly nested: boolean;
  constructor(root: Node, role: Role, space: RowSpace, gone: ReadonlySet<Node>, join: JoinProduct | undefined, nested = false) {
    this.root = root;
    this.space = space;
    this.gone = gone;
    this.join = join;
    this.nested = nested;
    this.roles.set(root, role);
    for (const d of root.inputs) this.leaves.add(d);
    for (const [node, own] of this.roles) this.absorb(node, own);
  }
  private absorb(node: Node, role: Role): void {
    for (const d of node.inputs) this.reads.set(d, 1 + (this.reads.get(d) ?? 0));
    for (const d of node.inputs) {
      const p = d.node;
      if (!p || d.storage || this.gone.has(p) || this.roles.has(p) || p.stream.device !== this.root.stream.device) continue;
      const wanted = roleOfInput(node, d, role, this.space);
      if (wanted === undefined || wanted !== roleOfNode(p, this.space)) this.blocked.add(d);
      if (this.blocked.has(d) || wanted === undefined || d.readers > (this.reads.get(d) ?? 0)) continue;
      const seen = d.handles > 0 || (this.reads.get(d) ?? 0) < d.consumers;
      const outputs = 1 + this.stored.length + Number(seen);
      if ((seen && p.op.view) || outputs > mostOutputs || this.leavesWith(d, p) + outputs > mostOperands || this.roles.size > mostNodes || this.join?.would(p, this.gone) || this.endsAnother(p)) continue;
      if (seen) this.stored.push(p);
      this.leaves.delete(d);
      for (const x of p.inputs) this.leaves.add(x);
      this.roles.set(p, wanted);
    }
  }
  /** True for the end of a group on longer rows that gives one element for each: it costs nothing there, and more of what it is made of finds a place (losses and their mean). */
  private endsAnother(p: Node): boolean {
    if (this.nested || !fusible(p)) return false;
    return spacesAbove(p).some((space) => sizeOf(space.shape) > sizeOf(this.space.shape) && roleOfNode(p, space) === "row" && new Trial(p, "row", space, this.gone, this.join, true).worth);
  }
  /** Operands once the group makes `d` itself; a mean needs the length of its rows as one more. */
  private leavesWith(d: ArrayDesc, p: Node): number {
    let n = this.leaves.size - Number(this.leaves.has(d)) + 1;
    for (const x of p.inputs) if (!this.leaves.has(x)) n++;
    return n;
  }
  /** True when elements need not go through memory once more: a reduction and formulas on elements, or several reductions of the same rows. */
  get worth(): boolean {
    let reduces = 0;
    let elements = 0;
    for (const [node, role] of this.roles) {
      if (node.op.rows) reduces++;
      else if (role === "element" && !node.op.view) elements++;
    }
    return reduces > 0 && (elements > 0 || reduces > 1);
  }
  settle(item: Item): void {
    for (const [d, n] of this.reads) d.readers -= n;
    const absorbed = [...this.roles.keys()].slice(1);
    for (const node of absorbed) (this.gone as Set<Node>).add(node);
    item.absorbed = absorbed;
    if (this.stored.length > 0) item.stored = this.stored;
    item.rows = this.space;
  }
}

// ---- from the nodes to the formulas

/** A stand-in for the number of inputs while they are being found. */
const unknownInputs = 512;

/** The group of an item, and the arrays that it reads in their order. `viewOf` tells where arrays lie. */
export function rowGroup(item: Item, outs: readonly ArrayDesc[], viewOf: (d: ArrayDesc) => View): { group: RowGroup; leaves: readonly ArrayDesc[] } {
  const space = item.rows as RowSpace;
  const draft = new RowBuilder(item, outs, viewOf, unknownInputs);
  const made = new RowBuilder(item, outs, viewOf, draft.leaves.length);
  const ownKernel = [item.node, ...(item.absorbed ?? [])].some(({ op }) => op.rows?.perRow === false);
  const group: RowGroup = { shape: space.shape, inputs: made.inputs, reduces: made.reduces, outputs: made.outputs, ...(ownKernel && { ownKernel }), expr };
  const order = orderOf(space);
  if (!order) return { group: space.rank === 1 ? group : { ...group, rank: space.rank }, leaves: made.leaves };
  const inOrder = (of: readonly number[]): number[] => order.map((axis) => of[axis] as number);
  return { group: { ...group, order, rank: space.rank, shape: inOrder(space.shape), inputs: made.inputs.map((x) => ({ dtype: x.dtype, strides: inOrder(x.strides) })) }, leaves: made.leaves };
}

class RowBuilder implements RowScope {
  readonly e: Expr = expr;
  readonly leaves: ArrayDesc[] = [];
  readonly inputs: GroupInput[] = [];
  readonly reduces: RowReduce[] = [];
  readonly outputs: RowOutput[];
  private readonly space: RowSpace;
  private readonly inside: Set<Node>;
  private readonly viewOf: (d: ArrayDesc) => View;
  private readonly first: number;
  private readonly made = new Map<ArrayDesc, Value>();
  /** Inputs by array and strides. */
  private readonly known = new Map<ArrayDesc, Map<string, Value>>();
  private readonly counts = new Map<Dtype, Value>();
  constructor(item: Item, outs: readonly ArrayDesc[], viewOf: (d: ArrayDesc) => View, first: number) {
    this.space = item.rows as RowSpace;
    this.inside = new Set([item.node, ...(item.absorbed ?? [])]);
    this.viewOf = viewOf;
    this.first = first;
    this.outputs = outs.map((d) => ({ dtype: d.dtype, value: this.result(d), perRow: roleOfNode(d.node as Node, this.space) === "row" }));
  }
  reduce(rule: RowRule, value: Value, dtype: Dtype): Value {
    return this.add({ rule, value, dtype });
  }
  pick(value: Value, at: Value, dtype: Dtype): Value {
    return this.add({ rule: "pick", value, dtype, at });
  }
  private add(made: RowReduce): Value {
    let k = this.reduces.findIndex((r) => r.rule === made.rule && r.value === made.value && r.dtype === made.dtype && r.at === made.at);
    if (k < 0) k = this.reduces.push(made) - 1;
    return this.e.input(this.first + k, made.dtype);
  }
  count(dtype: Dtype): Value {
    const known = this.counts.get(dtype);
    if (known) return known;
    const made = this.input(ArrayDesc.constant(reducedSize(this.space), dtype), this.space.shape.map(() => 0));
    this.counts.set(dtype, made);
    return made;
  }

  /** What a node of the group computes, as those that read it see it. */
  private result(d: ArrayDesc): Value {
    const known = this.made.get(d);
    if (known) return known;
    const node = d.node as Node;
    const role = roleOfNode(node, this.space) as Role;
    const xs = node.inputs.map((x) => this.of(x, node, role));
    const out = node.outputs[0] as ArrayDesc;
    const value = node.op.view ? xs[0] : node.op.rows ? node.op.rows.formula(this, xs, node.params, out, node.inputs) : node.op.expr?.(this.e, xs, node.params, out, node.inputs);
    const narrow = this.e.narrow(value as Value, d.dtype);
    this.made.set(d, narrow);
    return narrow;
  }
  private of(d: ArrayDesc, reader: Node, role: Role): Value {
    if (d.node && !d.storage && this.inside.has(d.node)) return this.result(d);
    return this.input(d, this.strides(d, reader, role));
  }
  /** Strides over the space of an array that the group only reads. */
  private strides(d: ArrayDesc, reader: Node, role: Role): number[] {
    const view = this.viewOf(d);
    if (!reader.op.view && (role === "element" || reader.op.rows)) return stridesOver(view, this.space.shape);
    return overSpace(this.space, keptStrides(this.space, stridesOver(view, reader.op.view ? d.shape : (reader.outputs[0] as ArrayDesc).shape)));
  }
  private input(d: ArrayDesc, strides: readonly number[]): Value {
    const key = strides.join();
    const forms = this.known.get(d) ?? new Map<string, Value>();
    this.known.set(d, forms);
    let v = forms.get(key);
    if (!v) {
      v = this.e.input(this.leaves.push(d) - 1, d.dtype);
      this.inputs.push({ dtype: d.dtype, strides });
      forms.set(key, v);
    }
    return v;
  }
}

/** Strides of an array over a shape that it is broadcast to. */
function stridesOver(d: View, shape: Shape): number[] {
  const lead = shape.length - d.shape.length;
  const strides = new Array<number>(shape.length).fill(0);
  for (let i = 0; i < d.shape.length; i++) if (d.shape[i] !== 1) strides[lead + i] = d.strides[i] as number;
  return strides;
}
