/** Kernels of elementwise groups as SPIR-V: where elements come from, what is computed how often, where results go. */
import { type Dtype, int16, int8 } from "../core/dtype.ts";
import { type Value, reachable } from "../core/expr.ts";
import type { GpuDevice } from "../core/gpu.ts";
import { emitScalar, typeId } from "./lanes-spirv.ts";
import { type CommonForm, type Stored, commonForm } from "./lower.ts";
import { type Id, SpirvModule, builtIn, decoration, spv, storageClass } from "./spirv.ts";

/**
 * How an invocation finds its elements of an operand. Row-major contiguous: `f` in wide accesses, `e` element by element (not aligned); `o` one value for
 * everything. Strided: `w` neighbours in wide accesses, `u` neighbours element by element, `r` one value for all of the invocation, `g` elements a stride apart.
 */
export type SpirvAccess = "f" | "e" | "o" | "w" | "u" | "r" | "g";
export const isFlat = (a: SpirvAccess): boolean => a === "f" || a === "e" || a === "o";

/** What the device must or may offer. */
export type SpirvFeatures = Pick<
  GpuDevice["features"],
  "shaderInt64" | "shaderFloat64" | "shaderInt8" | "shaderInt16" | "storageBuffer8BitAccess" | "storageBuffer16BitAccess" | "signedZeroInfNanPreserveFloat32" | "signedZeroInfNanPreserveFloat64"
>;

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
const afterShifts = (dims: number): number => 1 + 2 * (dims - 1) + Math.ceil((dims - 1) / 6);

export const groupSize = 128;
/** Invocations of a tile in dimensions 0 and 1: 16 elements or more of each, so that accesses along either fill sectors of 32 bytes. */
export const tileShape = (lanes: number): readonly [number, number] => {
  const inner = Math.max(4, 16 / lanes);
  return [inner, groupSize / inner];
};

/** Makes the module. */
export const emitSpirvKernel = (plan: SpirvPlan): Uint32Array => new Emitter(plan).emit();

/** The elements of an invocation: their common index (of wholes, or of the one element), and how many there are. */
interface Block {
  readonly index: Id;
  readonly lanes: number;
  /** Of each strided input: where the first element lies (`w`: counted in wide elements). */
  readonly positions: readonly (Id | undefined)[];
  /** Of each `g` input: from one element to the next. */
  readonly steps: readonly (Id | undefined)[];
}

class Emitter {
  private readonly m = new SpirvModule();
  private readonly plan: SpirvPlan;
  private readonly order: readonly Value[];
  /** What is computed first, where something is rare. */
  private readonly rareless: CommonForm | undefined;
  private readonly rarelessOrder: readonly Value[];
  /** Values that are the same for all elements of an invocation. */
  private readonly common = new Set<Value>();
  private readonly push: Id;
  private readonly operands: number;
  private readonly u32: Id;

  constructor(plan: SpirvPlan) {
    this.plan = plan;
    this.order = reachable(plan.outputs.map((o) => o.value));
    this.rareless = commonForm(plan.outputs);
    this.rarelessOrder = this.rareless ? reachable([...this.rareless.outputs.map((o) => o.value), ...this.rareless.unless]) : [];
    for (const v of [...this.rarelessOrder, ...this.order]) if (v.op === "input" ? "or".includes(plan.access[Number(v.imm)] as string) : v.args.every((a) => this.common.has(a))) this.common.add(v);
    const { m } = this;
    this.u32 = m.int(32);
    this.operands = plan.inputs.length + plan.outputs.length;
    const addresses = this.operands + (plan.table ? 1 : 0);
    // Addresses as pairs of words: pointers to small elements in push constants would want more features of the device.
    const members = [...new Array<Id>(addresses).fill(m.vector(this.u32, 2)), ...new Array<Id>(plan.table ? 0 : wordCount(plan)).fill(this.u32)];
    const offsets = members.map((_, i) => (i < addresses ? 8 * i : 8 * addresses + 4 * (i - addresses)));
    this.push = m.variable(storageClass.pushConstant, m.block(members, offsets));
  }

  emit(): Uint32Array {
    const { m, plan, u32 } = this;
    const types = new Set(this.order.map((v) => v.type));
    m.roundsDivision = plan.roundsDivision;
    if (types.has("f32") && plan.features.signedZeroInfNanPreserveFloat32) m.preserve(32);
    if (types.has("f64") && plan.features.signedZeroInfNanPreserveFloat64) m.preserve(64);
    const vector = m.vector(u32, 3);
    const [groups, group, local] = [m.variable(storageClass.input, vector), m.variable(storageClass.input, vector), m.variable(storageClass.input, u32)];
    m.decorate(groups, decoration.builtIn, builtIn.numWorkgroups);
    m.decorate(group, decoration.builtIn, builtIn.workgroupId);
    m.decorate(local, decoration.builtIn, builtIn.localInvocationIndex);
    return m.finish([groupSize, 1, 1], () => {
      const id = m.op(spv.load, vector, group);
      const width = m.op(spv.compositeExtract, u32, m.op(spv.load, vector, groups), 0);
      const above = m.op(spv.iMul, u32, m.op(spv.compositeExtract, u32, id, 1), width);
      const groupIndex = m.op(spv.iAdd, u32, m.op(spv.compositeExtract, u32, id, 0), above);
      const lane = m.op(spv.load, u32, local);
      if (plan.tiled) return this.emitTile(groupIndex, lane);
      const index = m.op(spv.iAdd, u32, m.op(spv.iMul, u32, groupIndex, m.u32(groupSize)), lane);
      const count = this.word(0);
      const tail = plan.dims === 0 && plan.lanes > 1;
      const whole = (): void => this.emitBlock(this.placed(index, plan.lanes, this.coordinates(index)));
      this.when(m.op(spv.uLessThan, m.bool(), index, count), whole, tail ? () => this.emitTail(index, count) : undefined);
    });
  }
  /** if (condition) yes; else no. */
  private when(condition: Id, yes: () => void, no?: () => void): void {
    const { m } = this;
    const [then, end] = [m.id(), m.id()];
    const otherwise = no ? m.id() : end;
    m.emit(spv.selectionMerge, end, 0);
    m.emit(spv.branchConditional, condition, then, otherwise);
    m.label(then);
    yes();
    m.emit(spv.branch, end);
    if (no) {
      m.label(otherwise);
      no();
      m.emit(spv.branch, end);
    }
    m.label(end);
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
    const tiles = this.coordinates(groupIndex);
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
      else {
        const count = this.common.has(v) ? 1 : lanes;
        const args = v.args.map((a) => ids.get(a) as readonly Id[]);
        ids.set(
          v,
          Array.from({ length: count }, (_, k) =>
            emitScalar(
              m,
              v,
              args.map((a) => (a.length === 1 ? a[0] : a[k]) as Id),
            ),
          ),
        );
      }
    }
  }
  private emitStores(outputs: readonly Stored[], ids: ReadonlyMap<Value, readonly Id[]>, block: Block): void {
    const { lanes } = block;
    outputs.forEach((o, j) => {
      const values = ids.get(o.value) as readonly Id[];
      this.emitStore(o, j, values.length === lanes ? values : new Array<Id>(lanes).fill(values[0] as Id), block);
    });
  }

  /** An index taken apart, innermost dimension first. */
  private coordinates(index: Id): Id[] {
    const { m, plan, u32 } = this;
    const coordinates: Id[] = [];
    let rest = index;
    for (let d = 0; d < plan.dims - 1; d++) {
      const quotient = this.divided(rest, d);
      coordinates.push(m.op(spv.iSub, u32, rest, m.op(spv.iMul, u32, quotient, this.word(1 + 2 * d))));
      rest = quotient;
    }
    if (plan.dims > 0) coordinates.push(rest);
    return coordinates;
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
  /** value / (size of dimension d) (see `reciprocal`). */
  private divided(value: Id, d: number): Id {
    const { m, u32 } = this;
    const product = m.op(spv.uMulExtended, m.struct([u32, u32]), m.op(spv.shiftLeft, u32, value, m.u32(1)), this.word(2 + 2 * d));
    const shifts = this.word(1 + 2 * (this.plan.dims - 1) + Math.floor(d / 6));
    const shift = m.op(spv.bitFieldUExtract, u32, shifts, m.u32(5 * (d % 6)), m.u32(5));
    return m.op(spv.shiftRightLogical, u32, m.op(spv.compositeExtract, u32, product, 1), shift);
  }

  /** Member of the push constants. */
  private member(index: number, type: Id): Id {
    const { m } = this;
    return m.op(spv.load, type, m.op(spv.accessChain, m.pointer(storageClass.pushConstant, type), this.push, m.u32(index)));
  }
  private word(index: number): Id {
    const { m, u32 } = this;
    if (!this.plan.table) return this.member(this.operands + index, u32);
    return m.op(spv.load, u32, this.pointer(this.operands, u32, 4, m.u32(index)), 2, 4);
  }
  /** Pointer to number `index` of the things of `bytes` bytes at the address in a member, or behind thing `from` there, which may be negative. */
  private pointer(member: number, type: Id, bytes: number, index: Id, from?: Id): Id {
    const { m } = this;
    const words = this.member(member, m.vector(this.u32, 2));
    const base = m.op(spv.bitcast, m.arrayPointer(type, bytes), from === undefined ? words : this.moved(words, from, Math.log2(bytes)));
    return m.op(spv.accessChain, m.pointer(storageClass.physicalStorageBuffer, type), base, m.u32(0), index);
  }
  /** The address `index` * 2^exponent bytes behind another one: in 64 bits by words, because devices take an index for unsigned. */
  private moved(address: Id, index: Id, exponent: number): Id {
    const { m, u32 } = this;
    const [low, high] = [m.op(spv.compositeExtract, u32, address, 0), m.op(spv.compositeExtract, u32, address, 1)];
    const by = exponent === 0 ? index : m.op(spv.shiftLeft, u32, index, m.u32(exponent));
    const above = m.op(spv.shiftRightArithmetic, u32, index, m.u32(exponent === 0 ? 31 : 32 - exponent));
    const sum = m.op(spv.iAddCarry, m.struct([u32, u32]), low, by);
    const top = m.op(spv.iAdd, u32, m.op(spv.iAdd, u32, high, above), m.op(spv.compositeExtract, u32, sum, 1));
    return m.op(spv.compositeConstruct, m.vector(u32, 2), m.op(spv.compositeExtract, u32, sum, 0), top);
  }
  private plus(index: Id, k: number): Id {
    return k === 0 ? index : this.m.op(spv.iAdd, this.u32, index, this.m.u32(k));
  }
  private times(index: Id, k: number): Id {
    return k === 1 ? index : this.m.op(spv.iMul, this.u32, index, this.m.u32(k));
  }
  private elementType(bytes: number, isFloat: boolean): Id {
    if (isFloat) return this.m.float(bytes === 8 ? 64 : 32);
    return this.m.int((8 * bytes) as 8 | 16 | 32 | 64);
  }

  /** The elements of an input in their compute type; small integers are widened. One when all are the same. */
  private emitInput(v: Value, block: Block): Id[] {
    const { m, plan, u32 } = this;
    const i = Number(v.imm);
    const access = plan.access[i] as SpirvAccess;
    const { index, lanes } = block;
    const at = block.positions[i] as Id;
    const one = (position: Id): Id => this.loadElement(v, i, position);
    // Positions of strided inputs may be negative.
    const far = (from: Id, k = 0): Id => this.loadElement(v, i, m.u32(k), from);
    switch (access) {
      case "o":
        return [one(m.u32(0))];
      case "r":
        return [far(at)];
      case "g":
        return Array.from({ length: lanes }, (_, k) => far(k === 0 ? at : m.op(spv.iAdd, u32, at, this.times(block.steps[i] as Id, k))));
      case "u":
        return Array.from({ length: lanes }, (_, k) => far(at, k));
      default:
    }
    if (lanes === 1) return [access === "w" ? far(at) : one(index)];
    if (access !== "e") return this.loadWide(v, i, access === "w" ? at : index, access === "w");
    const first = this.times(index, lanes);
    return Array.from({ length: lanes }, (_, k) => one(this.plus(first, k)));
  }
  private loadElement(v: Value, i: number, position: Id, from?: Id): Id {
    const { m, plan } = this;
    const { size, isFloat } = plan.inputs[i] as Dtype;
    const type = this.elementType(size, isFloat && size >= 4);
    const loaded = m.op(spv.load, type, this.pointer(i, type, size, position, from), 2, size);
    if (size >= 4) return loaded;
    return m.op(isSigned(v) ? spv.sConvert : spv.uConvert, typeId(m, v.type), loaded);
  }
  /** All elements of a whole invocation: its words in accesses of up to 16 bytes, taken apart. */
  private loadWide(v: Value, i: number, position: Id, signed: boolean): Id[] {
    const { m, plan, u32 } = this;
    const { size } = plan.inputs[i] as Dtype;
    const words = this.wideAccess(i, size, position, signed, (pointer, type, bytes, n) => {
      const loaded = m.op(spv.load, type, pointer, 2, bytes);
      if (bytes < 4) return [m.op(spv.uConvert, u32, loaded)];
      return n === 1 ? [loaded] : Array.from({ length: n }, (_, k) => m.op(spv.compositeExtract, u32, loaded, k));
    });
    const type = typeId(m, v.type);
    return Array.from({ length: plan.lanes }, (_, k) => {
      if (size < 4) {
        const bits = 8 * size;
        return m.op(isSigned(v) ? spv.bitFieldSExtract : spv.bitFieldUExtract, u32, words[(k * bits) >> 5] as Id, m.u32((k * bits) & 31), m.u32(bits));
      }
      if (size === 4) return type === u32 ? (words[k] as Id) : m.op(spv.bitcast, type, words[k] as Id);
      return m.op(spv.bitcast, type, m.op(spv.compositeConstruct, m.vector(u32, 2), words[2 * k] as Id, words[2 * k + 1] as Id));
    });
  }
  /** Calls `use` for each wide access that covers `lanes` elements of `size` bytes: pointer, type, bytes and 32-bit words of it (at least one). */
  private wideAccess(operand: number, size: number, position: Id, signed: boolean, use: (pointer: Id, type: Id, bytes: number, words: number) => Id[]): Id[] {
    const { m, u32 } = this;
    const all = this.plan.lanes * size;
    const bytes = Math.min(16, all);
    const words = Math.max(1, bytes / 4);
    const type = bytes < 4 ? m.int((8 * bytes) as 8 | 16) : words === 1 ? u32 : m.vector(u32, words);
    const count = all / bytes;
    const first = this.times(position, count);
    return Array.from({ length: count }, (_, k) => use(signed ? this.pointer(operand, type, bytes, m.u32(k), first) : this.pointer(operand, type, bytes, this.plus(first, k)), type, bytes, words)).flat();
  }

  private emitStore(o: Stored, j: number, values: readonly Id[], block: Block): void {
    const { m, plan } = this;
    const operand = plan.inputs.length + j;
    if (block.lanes > 1 && plan.stores[j] === "f") {
      this.storeWide(o, operand, values, block.index);
      return;
    }
    const isFloat = o.value.type === "f32" || o.value.type === "f64";
    const type = this.elementType(o.bytes, isFloat);
    const first = this.times(block.index, block.lanes);
    values.forEach((value, k) => {
      const stored = o.bytes < 4 ? m.op(spv.uConvert, type, value) : value;
      m.emit(spv.store, this.pointer(operand, type, o.bytes, this.plus(first, k)), stored, 2, o.bytes);
    });
  }
  private storeWide(o: Stored, operand: number, values: readonly Id[], index: Id): void {
    const { m, u32 } = this;
    const words = this.packed(o, values);
    let at = 0;
    this.wideAccess(operand, o.bytes, index, false, (pointer, type, bytes, n) => {
      const mine = words.slice(at, at + n);
      at += n;
      const value = bytes < 4 ? m.op(spv.uConvert, type, mine[0] as Id) : n === 1 ? (mine[0] as Id) : m.op(spv.compositeConstruct, m.vector(u32, n), ...mine);
      m.emit(spv.store, pointer, value, 2, bytes);
      return [];
    });
  }
  /** Stored elements side by side in 32-bit words. */
  private packed(o: Stored, values: readonly Id[]): Id[] {
    const { m, u32 } = this;
    if (o.bytes === 8) {
      const pair = m.vector(u32, 2);
      return values.flatMap((value) => {
        const both = m.op(spv.bitcast, pair, value);
        return [m.op(spv.compositeExtract, u32, both, 0), m.op(spv.compositeExtract, u32, both, 1)];
      });
    }
    if (o.bytes === 4) return values.map((value) => (o.value.type === "f32" ? m.op(spv.bitcast, u32, value) : value));
    const bits = 8 * o.bytes;
    const each = Math.min(values.length, 32 / bits);
    const words: Id[] = [];
    for (let k = 0; k < values.length; k += each) {
      // What lies above the first element's bits is written over by the others.
      let word = values[k] as Id;
      for (let n = 1; n < each; n++) word = m.op(spv.bitFieldInsert, u32, word, values[k + n] as Id, m.u32(n * bits), m.u32(bits));
      words.push(word);
    }
    return words;
  }
}

const isSigned = (v: Value): boolean => v.dtype === int8 || v.dtype === int16;
