/** Kernels of elementwise groups as SPIR-V: where elements come from, what is computed how often, where results go. */
import type { Dtype } from "../core/dtype.ts";
import { type Value, reachable } from "../core/expr.ts";
import { type CommonForm, type Stored, commonForm } from "./lower.ts";
import { type Block, SpirvEmitter, type SpirvAccess, type SpirvFeatures, divisionWords, isFlat } from "./operands-spirv.ts";
import { type Id, builtIn, spv } from "./spirv.ts";

export { type SpirvAccess, type SpirvFeatures, isFlat } from "./operands-spirv.ts";

/** What a kernel is made for. No sizes: they are words. */
export interface SpirvPlan {
  readonly outputs: readonly Stored[];
  readonly inputs: readonly Dtype[];
  readonly access: readonly SpirvAccess[];
  /** `f` or `e` for each output. */
  readonly stores: readonly SpirvAccess[];
  /** Dimensions, when an input is strided; else 0. */
  readonly dims: number;
  /** Elements per invocation. With dims = 0 elements that fill no invocation get one each; else `lanes` divides the inner dimension. */
  readonly lanes: number;
  /**
   * Workgroups take tiles of dimensions 0 and 1 instead of runs of dimension 0: when an input's neighbours lie along dimension 1, what a cache line of it holds is
   * then used by one workgroup.
   */
  readonly tiled: boolean;
  /** The words lie in memory; else they follow the addresses. */
  readonly table: boolean;
  readonly features: SpirvFeatures;
  /** float32 division by the instruction alone. */
  readonly roundsDivision: boolean;
}

/**
 * Words: the number of whole invocations; without dimensions and with several lanes the number of elements; with dimensions, innermost first and without the
 * outermost, each one's size (the inner one counted in invocations) and multiplier, then their shifts (5 bits each, 6 in a word), then per strided input its strides
 * (`g`: all; others: without the inner one; `w`: counted in wide elements).
 * Tiled: the number of tiles first; sizes 0 and 1 are counted in tiles; before the strides of inputs come the true sizes 0 and 1 and the strides of the output without
 * the inner one, both counted in invocations.
 */
const wordCount = (plan: SpirvPlan): number => {
  const { dims, lanes, access, tiled } = plan;
  if (dims === 0) return lanes > 1 ? 2 : 1;
  const strides = access.reduce((n, a) => n + (isFlat(a) ? 0 : a === "g" ? dims : dims - 1), 0);
  return afterShifts(dims) + (tiled ? dims + 1 : 0) + strides;
};
const afterShifts = (dims: number): number => 1 + divisionWords(dims);

export const groupSize = 128;
/** Invocations of a tile in dimensions 0 and 1: 16 elements or more of each, so that accesses along either fill sectors of 32 bytes. */
export const tileShape = (lanes: number): readonly [number, number] => {
  const inner = Math.max(4, 16 / lanes);
  return [inner, groupSize / inner];
};

/** Makes the module. */
export const emitSpirvKernel = (plan: SpirvPlan): Uint32Array => new Emitter(plan).emit();

class Emitter extends SpirvEmitter {
  private readonly plan: SpirvPlan;
  private readonly order: readonly Value[];
  /** What is computed first, where something is rare. */
  private readonly rareless: CommonForm | undefined;
  private readonly rarelessOrder: readonly Value[];
  /** Values that are the same for all elements of an invocation. */
  private readonly common = new Set<Value>();

  constructor(plan: SpirvPlan) {
    super({ inputs: plan.inputs, access: plan.access, stores: plan.stores, more: 0, table: plan.table, words: wordCount(plan), signed: true });
    this.plan = plan;
    this.order = reachable(plan.outputs.map((o) => o.value));
    this.rareless = commonForm(plan.outputs);
    this.rarelessOrder = this.rareless ? reachable([...this.rareless.outputs.map((o) => o.value), ...this.rareless.unless]) : [];
    for (const v of [...this.rarelessOrder, ...this.order]) if (v.op === "input" ? "or".includes(plan.access[Number(v.imm)] as string) : v.args.every((a) => this.common.has(a))) this.common.add(v);
  }

  emit(): Uint32Array {
    const { m, plan, u32 } = this;
    this.declareUsed(this.order, plan.features, plan.roundsDivision);
    const group = this.groupVariables();
    const local = this.builtIn(u32, builtIn.localInvocationIndex);
    return m.finish([groupSize, 1, 1], () => {
      const groupIndex = this.groupIndex(group);
      const lane = m.op(spv.load, u32, local);
      if (plan.tiled) return this.emitTile(groupIndex, lane);
      const index = m.op(spv.iAdd, u32, m.op(spv.iMul, u32, groupIndex, m.u32(groupSize)), lane);
      const count = this.word(0);
      const tail = plan.dims === 0 && plan.lanes > 1;
      const whole = (): void => this.emitBlock(this.placed(index, plan.lanes, this.coordinates(index, plan.dims, 1)));
      this.when(m.op(spv.uLessThan, m.bool(), index, count), whole, tail ? () => this.emitTail(index, count) : undefined);
    });
  }
  /** Invocations beyond the whole ones: one element each. */
  private emitTail(index: Id, count: Id): void {
    const { m, u32, plan } = this;
    const element = m.op(spv.iAdd, u32, index, m.op(spv.iMul, u32, count, m.u32(plan.lanes - 1)));
    this.when(m.op(spv.uLessThan, m.bool(), element, this.word(1)), () => this.emitBlock(this.placed(element, 1, [])));
  }
  /** The workgroup's tile, and in it the invocation's place. */
  private emitTile(groupIndex: Id, lane: Id): void {
    const { m, u32, plan } = this;
    const [inner, outer] = tileShape(plan.lanes);
    const tiles = this.coordinates(groupIndex, plan.dims, 1);
    const local = [m.op(spv.bitwiseAnd, u32, lane, m.u32(inner - 1)), m.op(spv.shiftRightLogical, u32, lane, m.u32(Math.log2(inner)))];
    const coordinates = tiles.map((t, d) => (d < 2 ? m.op(spv.iAdd, u32, this.times(t, d === 0 ? inner : outer), local[d] as Id) : t));
    const sizes = afterShifts(plan.dims);
    const below = (a: Id, b: Id): Id => m.op(spv.uLessThan, m.bool(), a, b);
    const inside = [below(groupIndex, this.word(0)), below(coordinates[0] as Id, this.word(sizes)), below(coordinates[1] as Id, this.word(sizes + 1))].reduce((a, b) => m.op(spv.logicalAnd, m.bool(), a, b));
    this.when(inside, () => {
      const index = coordinates.reduce((at, c, d) => (d === 0 ? at : m.op(spv.iAdd, u32, at, m.op(spv.iMul, u32, c, this.word(sizes + 1 + d)))));
      this.emitBlock(this.placed(index, plan.lanes, coordinates));
    });
  }

  /** In the common form, or, where the invocation has found something rare, in the whole one. */
  private emitBlock(block: Block): void {
    const { m, plan, rareless } = this;
    const ids = new Map<Value, readonly Id[]>();
    if (!rareless) {
      this.emitValues(this.order, ids, block);
      this.emitStores(plan.outputs, ids, block);
      return;
    }
    this.emitValues(this.rarelessOrder, ids, block);
    const rare = rareless.unless.flatMap((v) => ids.get(v) as readonly Id[]).reduce((a, b) => m.op(spv.logicalOr, m.bool(), a, b));
    const again = (): void => {
      this.emitValues(this.order, ids, block);
      this.emitStores(plan.outputs, ids, block);
    };
    this.when(rare, again, () => this.emitStores(rareless.outputs, ids, block));
  }
  /** Adds to `ids` what it lacks. */
  private emitValues(order: readonly Value[], ids: Map<Value, readonly Id[]>, block: Block): void {
    const { m } = this;
    const { lanes } = block;
    for (const v of order) {
      if (ids.has(v)) continue;
      if (v.op === "input") ids.set(v, this.emitInput(v, block));
      else ids.set(v, this.emitValue(v, this.common.has(v) ? 1 : lanes, v.args.map((a) => ids.get(a) as readonly Id[])));
    }
  }
  private emitStores(outputs: readonly Stored[], ids: ReadonlyMap<Value, readonly Id[]>, block: Block): void {
    const { lanes } = block;
    outputs.forEach((o, j) => {
      const values = ids.get(o.value) as readonly Id[];
      this.emitStore(o, j, values.length === lanes ? values : new Array<Id>(lanes).fill(values[0] as Id), block);
    });
  }

  /** Where the elements of strided inputs lie. */
  private placed(index: Id, lanes: number, coordinates: readonly Id[]): Block {
    const { m, plan, u32 } = this;
    const inner = lanes > 1 && plan.dims > 0 ? m.op(spv.iMul, u32, coordinates[0] as Id, m.u32(lanes)) : coordinates[0];
    let at = afterShifts(plan.dims) + (plan.tiled ? plan.dims + 1 : 0);
    const steps: (Id | undefined)[] = [];
    const positions = plan.access.map((a, i) => {
      if (isFlat(a)) return undefined;
      const terms: Id[] = [];
      if (a === "w") terms.push(coordinates[0] as Id);
      else if (a === "u") terms.push(inner as Id);
      else if (a === "g") {
        steps[i] = this.word(at++);
        terms.push(m.op(spv.iMul, u32, inner as Id, steps[i] as Id));
      }
      for (let d = 1; d < plan.dims; d++) terms.push(m.op(spv.iMul, u32, coordinates[d] as Id, this.word(at++)));
      return terms.length === 0 ? m.u32(0) : terms.reduce((x, y) => m.op(spv.iAdd, u32, x, y));
    });
    return { index, lanes, positions, steps };
  }
}
