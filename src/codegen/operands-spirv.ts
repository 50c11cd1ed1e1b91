/** What generated SPIR-V kernels share: push constants and tables of words, addresses, loads and stores of one element or of several neighbours, branches. */
import { type Dtype, int16, int8 } from "../core/dtype.ts";
import { type Value, isFloatType } from "../core/expr.ts";
import type { GpuDevice } from "../core/gpu.ts";
import { emitScalar, typeId } from "./lanes-spirv.ts";
import type { Stored } from "./lower.ts";
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

/** The operands of a kernel, as far as code depends on them. */
export interface SpirvOperands {
  readonly inputs: readonly Dtype[];
  readonly access: readonly SpirvAccess[];
  /** `f` or `e` for each output. */
  readonly stores: readonly SpirvAccess[];
  /** Addresses after those of inputs and outputs. */
  readonly more: number;
  /** The words lie in memory; else they follow the addresses. */
  readonly table: boolean;
  /** Number of words. */
  readonly words: number;
  /** Positions of strided inputs may be negative. */
  readonly signed: boolean;
}

/** The elements of an invocation: their common index (of wholes, or of the one element), and how many there are. */
export interface Block {
  readonly index: Id;
  readonly lanes: number;
  /** Of each strided input: where the first element lies (`w`: counted in wide elements). */
  readonly positions: readonly (Id | undefined)[];
  /** Of each `g` input: from one element to the next. */
  readonly steps: readonly (Id | undefined)[];
}

export class SpirvEmitter {
  protected readonly m = new SpirvModule();
  protected readonly u32: Id;
  protected readonly operands: SpirvOperands;
  private readonly addresses: number;
  private readonly push: Id;

  constructor(operands: SpirvOperands) {
    this.operands = operands;
    const { m } = this;
    this.u32 = m.int(32);
    this.addresses = operands.inputs.length + operands.stores.length + operands.more;
    const addresses = this.addresses + (operands.table ? 1 : 0);
    // Addresses as pairs of words: pointers to small elements in push constants would want more features of the device.
    const members = [...new Array<Id>(addresses).fill(m.vector(this.u32, 2)), ...new Array<Id>(operands.table ? 0 : operands.words).fill(this.u32)];
    const offsets = members.map((_, i) => (i < addresses ? 8 * i : 8 * addresses + 4 * (i - addresses)));
    this.push = m.variable(storageClass.pushConstant, m.block(members, offsets));
  }

  /** States which arithmetic the values want of the device. */
  protected declareUsed(values: readonly Value[], features: SpirvFeatures, roundsDivision: boolean): void {
    const types = new Set(values.map((v) => v.type));
    this.m.roundsDivision = roundsDivision;
    if (types.has("f32") && features.signedZeroInfNanPreserveFloat32) this.m.preserve(32);
    if (types.has("f64") && features.signedZeroInfNanPreserveFloat64) this.m.preserve(64);
  }
  protected builtIn(type: Id, what: number): Id {
    const id = this.m.variable(storageClass.input, type);
    this.m.decorate(id, decoration.builtIn, what);
    return id;
  }
  /** Variables that `groupIndex` loads. */
  protected groupVariables(): [groups: Id, group: Id] {
    const vector = this.m.vector(this.u32, 3);
    return [this.builtIn(vector, builtIn.numWorkgroups), this.builtIn(vector, builtIn.workgroupId)];
  }
  /** The workgroup's number. */
  protected groupIndex([groups, group]: readonly [Id, Id]): Id {
    const { m, u32 } = this;
    const vector = m.vector(u32, 3);
    const id = m.op(spv.load, vector, group);
    const width = m.op(spv.compositeExtract, u32, m.op(spv.load, vector, groups), 0);
    const above = m.op(spv.iMul, u32, m.op(spv.compositeExtract, u32, id, 1), width);
    return m.op(spv.iAdd, u32, m.op(spv.compositeExtract, u32, id, 0), above);
  }
  /** if (condition) yes; else no. */
  protected when(condition: Id, yes: () => void, no?: () => void): void {
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
  /** A value of an operation, one for each element or one for all. */
  protected emitValue(v: Value, lanes: number, args: readonly (readonly Id[])[]): Id[] {
    return Array.from({ length: lanes }, (_, k) => emitScalar(this.m, v, args.map((a) => (a.length === 1 ? a[0] : a[k]) as Id)));
  }
  /** An index taken apart, innermost dimension first. Words from `first` on: size and multiplier (see `reciprocal`) of each dimension but the outermost, then the shifts. */
  protected coordinates(index: Id, dims: number, first: number): Id[] {
    const { m, u32 } = this;
    const coordinates: Id[] = [];
    let rest = index;
    for (let d = 0; d < dims - 1; d++) {
      const product = m.op(spv.uMulExtended, m.struct([u32, u32]), m.op(spv.shiftLeft, u32, rest, m.u32(1)), this.word(first + 1 + 2 * d));
      const shifts = this.word(first + 2 * (dims - 1) + Math.floor(d / 6));
      const shift = m.op(spv.bitFieldUExtract, u32, shifts, m.u32(5 * (d % 6)), m.u32(5));
      const quotient = m.op(spv.shiftRightLogical, u32, m.op(spv.compositeExtract, u32, product, 1), shift);
      coordinates.push(m.op(spv.iSub, u32, rest, m.op(spv.iMul, u32, quotient, this.word(first + 2 * d))));
      rest = quotient;
    }
    if (dims > 0) coordinates.push(rest);
    return coordinates;
  }

  /** Member of the push constants. */
  protected member(index: number, type: Id): Id {
    const { m } = this;
    return m.op(spv.load, type, m.op(spv.accessChain, m.pointer(storageClass.pushConstant, type), this.push, m.u32(index)));
  }
  protected word(index: number): Id {
    const { m, u32 } = this;
    if (!this.operands.table) return this.member(this.addresses + index, u32);
    return m.op(spv.load, u32, this.pointer(this.addresses, u32, 4, m.u32(index)), 2, 4);
  }
  /** Pointer to number `index` of the things of `bytes` bytes at the address in a member, or behind thing `from` there, which may be negative. */
  protected pointer(member: number, type: Id, bytes: number, index: Id, from?: Id): Id {
    const { m } = this;
    const words = this.member(member, m.vector(this.u32, 2));
    const base = m.op(spv.bitcast, m.arrayPointer(type, bytes), from === undefined ? words : this.moved(words, from, Math.log2(bytes)));
    return m.op(spv.accessChain, m.pointer(storageClass.physicalStorageBuffer, type), base, m.u32(0), index);
  }
  /** The address `index` * 2^exponent bytes behind another one: in 64 bits by words, because devices take an index for unsigned. */
  protected moved(address: Id, index: Id, exponent: number): Id {
    const { m, u32 } = this;
    const [low, high] = [m.op(spv.compositeExtract, u32, address, 0), m.op(spv.compositeExtract, u32, address, 1)];
    const by = exponent === 0 ? index : m.op(spv.shiftLeft, u32, index, m.u32(exponent));
    const above = m.op(spv.shiftRightArithmetic, u32, index, m.u32(exponent === 0 ? 31 : 32 - exponent));
    const sum = m.op(spv.iAddCarry, m.struct([u32, u32]), low, by);
    const top = m.op(spv.iAdd, u32, m.op(spv.iAdd, u32, high, above), m.op(spv.compositeExtract, u32, sum, 1));
    return m.op(spv.compositeConstruct, m.vector(u32, 2), m.op(spv.compositeExtract, u32, sum, 0), top);
  }
  protected plus(index: Id, k: number): Id {
    return k === 0 ? index : this.m.op(spv.iAdd, this.u32, index, this.m.u32(k));
  }
  protected times(index: Id, k: number): Id {
    return k === 1 ? index : this.m.op(spv.iMul, this.u32, index, this.m.u32(k));
  }
  protected elementType(bytes: number, isFloat: boolean): Id {
    if (isFloat) return this.m.float(bytes === 8 ? 64 : 32);
    return this.m.int((8 * bytes) as 8 | 16 | 32 | 64);
  }

  /** The elements of an input in their compute type; small integers are widened. One when all are the same. */
  protected emitInput(v: Value, block: Block): Id[] {
    const { m, operands, u32 } = this;
    const i = Number(v.imm);
    const access = operands.access[i] as SpirvAccess;
    const { index, lanes } = block;
    const at = block.positions[i] as Id;
    const one = (position: Id): Id => this.loadElement(v, i, position);
    const { signed } = operands;
    const far = (from: Id, k = 0): Id => (signed ? this.loadElement(v, i, m.u32(k), from) : one(this.plus(from, k)));
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
    if (access !== "e") return this.loadWide(v, i, access === "w" ? at : index, lanes, signed && access === "w");
    const first = this.times(index, lanes);
    return Array.from({ length: lanes }, (_, k) => one(this.plus(first, k)));
  }
  protected loadElement(v: Value, i: number, position: Id, from?: Id): Id {
    const { m, operands } = this;
    const { size, isFloat } = operands.inputs[i] as Dtype;
    const type = this.elementType(size, isFloat && size >= 4);
    const loaded = m.op(spv.load, type, this.pointer(i, type, size, position, from), 2, size);
    if (size >= 4) return loaded;
    return m.op(isSigned(v) ? spv.sConvert : spv.uConvert, typeId(m, v.type), loaded);
  }
  /** All elements of a whole invocation: its words in accesses of up to 16 bytes, taken apart. */
  protected loadWide(v: Value, i: number, position: Id, lanes: number, signed: boolean): Id[] {
    const { m, operands, u32 } = this;
    const { size } = operands.inputs[i] as Dtype;
    const words = this.wideAccess(i, size, lanes, position, signed, (pointer, type, bytes, n) => {
      const loaded = m.op(spv.load, type, pointer, 2, bytes);
      if (bytes < 4) return [m.op(spv.uConvert, u32, loaded)];
      return n === 1 ? [loaded] : Array.from({ length: n }, (_, k) => m.op(spv.compositeExtract, u32, loaded, k));
    });
    const type = typeId(m, v.type);
    return Array.from({ length: lanes }, (_, k) => {
      if (size < 4) {
        const bits = 8 * size;
        return m.op(isSigned(v) ? spv.bitFieldSExtract : spv.bitFieldUExtract, u32, words[(k * bits) >> 5] as Id, m.u32((k * bits) & 31), m.u32(bits));
      }
      if (size === 4) return type === u32 ? (words[k] as Id) : m.op(spv.bitcast, type, words[k] as Id);
      return m.op(spv.bitcast, type, m.op(spv.compositeConstruct, m.vector(u32, 2), words[2 * k] as Id, words[2 * k + 1] as Id));
    });
  }
  /** Calls `use` for each wide access that covers `lanes` elements of `size` bytes: pointer, type, bytes and 32-bit words of it (at least one). */
  protected wideAccess(operand: number, size: number, lanes: number, position: Id, signed: boolean, use: (pointer: Id, type: Id, bytes: number, words: number) => Id[]): Id[] {
    const { m, u32 } = this;
    const all = lanes * size;
    const bytes = Math.min(16, all);
    const words = Math.max(1, bytes / 4);
    const type = bytes < 4 ? m.int((8 * bytes) as 8 | 16) : words === 1 ? u32 : m.vector(u32, words);
    const count = all / bytes;
    const first = this.times(position, count);
    return Array.from({ length: count }, (_, k) => use(signed ? this.pointer(operand, type, bytes, m.u32(k), first) : this.pointer(operand, type, bytes, this.plus(first, k)), type, bytes, words)).flat();
  }

  protected emitStore(o: Stored, j: number, values: readonly Id[], block: Block): void {
    const { m, operands } = this;
    const operand = operands.inputs.length + j;
    if (block.lanes > 1 && operands.stores[j] === "f") {
      this.storeWide(o, operand, values, block.index);
      return;
    }
    const isFloat = isFloatType(o.value.type);
    const type = this.elementType(o.bytes, isFloat);
    const first = this.times(block.index, block.lanes);
    values.forEach((value, k) => {
      const stored = o.bytes < 4 ? m.op(spv.uConvert, type, value) : value;
      m.emit(spv.store, this.pointer(operand, type, o.bytes, this.plus(first, k)), stored, 2, o.bytes);
    });
  }
  protected storeWide(o: Stored, operand: number, values: readonly Id[], index: Id): void {
    const { m, u32 } = this;
    const words = this.packed(o, values);
    let at = 0;
    this.wideAccess(operand, o.bytes, values.length, index, false, (pointer, type, bytes, n) => {
      const mine = words.slice(at, at + n);
      at += n;
      const value = bytes < 4 ? m.op(spv.uConvert, type, mine[0] as Id) : n === 1 ? (mine[0] as Id) : m.op(spv.compositeConstruct, m.vector(u32, n), ...mine);
      m.emit(spv.store, pointer, value, 2, bytes);
      return [];
    });
  }
  /** Stored elements side by side in 32-bit words. */
  protected packed(o: Stored, values: readonly Id[]): Id[] {
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
/** Words that `coordinates` reads. */
export const divisionWords = (dims: number): number => (dims === 0 ? 0 : 2 * (dims - 1) + Math.ceil((dims - 1) / 6));
