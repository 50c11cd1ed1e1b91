/**
 * Reductions of row kernels, instruction by instruction. Four accumulators take a round of vectors each; 32 rounds are one block, and blocks are added pairwise to a
 * total: the order of assembly/templates/reduce.ts, so that results have the same bits as those of the hand-written kernels.
 */
import { type ScalarType, type Value, expr, isFloatType, isWide } from "../core/expr.ts";
import { constBytes } from "./kernel.ts";
import type { RowRule } from "./rows.ts";
import { type Code, op, simd } from "./wasm.ts";

/** Leaves a vector on the stack. */
export type Push = () => void;

type Combination = Partial<Record<ScalarType, number>>;
const adds: Combination = { f32: 0xe4, f64: 0xf0, i32: 0xae, u32: 0xae, i64: 0xce, u64: 0xce };
const products: Combination = { f32: 0xe6, f64: 0xf2, i32: 0xb5, u32: 0xb5, i64: 0xd5, u64: 0xd5 };
/** Those of floats keep NaN. */
const greatest: Combination = { f32: 0xe9, f64: 0xf5, i32: 0xb8, u32: 0xb9 };
const least: Combination = { f32: 0xe8, f64: 0xf4, i32: 0xb6, u32: 0xb7 };
/** Pass NaN over when it is the second operand. */
const pseudoGreatest: Combination = { f32: 0xeb, f64: 0xf7 };
const pseudoLeast: Combination = { f32: 0xea, f64: 0xf6 };
const above: Combination = { f32: 0x44, f64: 0x4a, i32: 0x3b, u32: 0x3c, i64: 0xd9, u64: 0xd9 };
const below: Combination = { f32: 0x43, f64: 0x49, i32: 0x39, u32: 0x3a, i64: 0xd8, u64: 0xd8 };
const equal32: Combination = { f32: 0x41, i32: 0x37, u32: 0x37 };
const notEqual: Combination = { f32: 0x42, f64: 0x48 };
const i32Below = 0x3a;

const lowest: Partial<Record<ScalarType, number | bigint>> = { f32: Number.NEGATIVE_INFINITY, f64: Number.NEGATIVE_INFINITY, i32: -(2 ** 31), u32: 0, i64: -(1n << 63n), u64: 0n };
const highest: Partial<Record<ScalarType, number | bigint>> = { f32: Number.POSITIVE_INFINITY, f64: Number.POSITIVE_INFINITY, i32: 2 ** 31 - 1, u32: 2 ** 32 - 1, i64: (1n << 63n) - 1n, u64: (1n << 64n) - 1n };

/** What nothing is reduced to. */
export function identityOf(rule: RowRule, type: ScalarType): Value {
  switch (rule) {
    case "prod": return expr.const(type, 1);
    case "max": case "argmax": return expr.const(type, lowest[type] as number);
    case "min": case "argmin": return expr.const(type, highest[type] as number);
    case "all": return expr.const("bool", true);
    default: return expr.const(type, 0);
  }
}

/** Pushes the combination of two vectors. */
export function combine(c: Code, rule: RowRule, type: ScalarType, a: Push, b: Push): void {
  const max = rule === "max";
  if (type === "u64" && (max || rule === "min")) {
    // Without unsigned comparison: those of the numbers with the sign bit flipped.
    a();
    b();
    flipped(c, a);
    flipped(c, b);
    c.simd(((max ? above : below)[type]) as number);
    c.simd(simd.bitselect);
    return;
  }
  a();
  b();
  if (type === "i64" && (max || rule === "min")) {
    a();
    b();
    c.simd((max ? above : below)[type] as number);
    c.simd(simd.bitselect);
    return;
  }
  c.simd(codeOf(rule, type));
}
function codeOf(rule: RowRule, type: ScalarType): number {
  switch (rule) {
    case "all": return simd.and;
    case "any": return simd.or;
    case "sum": return adds[type] as number;
    case "prod": return products[type] as number;
    default: return (rule === "max" ? greatest : least)[type] as number;
  }
}
function flipped(c: Code, a: Push): void {
  a();
  c.v128(constBytes(expr.const("u64", 1n << 63n)));
  c.simd(simd.xor);
}

/** One lane of a vector in all lanes. */
export function splatLane(c: Code, push: Push, type: ScalarType, lane: number): void {
  push();
  push();
  const bytes = isWide(type) ? 8 : 4;
  c.shuffle(Array.from({ length: 16 }, (_, i) => lane * bytes + (i % bytes)));
}
/** The lanes of a vector, rotated by some. */
function rotated(c: Code, push: Push, lanes: number): void {
  push();
  push();
  c.shuffle(Array.from({ length: 16 }, (_, i) => (i + 4 * lanes) % 16));
}

/** State of one reduction: locals of the loop. */
export interface Reducer {
  /** Before the loop; before each block of rounds. */
  start(): void;
  startBlock(): void;
  /** A vector (part `h` of copy `k`, four elements each) of a round. */
  round(at: number, y: number): void;
  endRound(): void;
  endBlock(): void;
  /** Behind the last block; then what is left, four elements (in one vector or two) or one (in all lanes) at a time. */
  endRounds(): void;
  four(ys: readonly number[]): void;
  one(y: number): void;
  /** Leaves the result in all lanes of a local. */
  finish(): number;
}

/** Vectors that the accumulators of a fold start from, and where in memory there is room for them. */
export interface FoldPlaces {
  readonly identity: number;
  readonly zero: number;
  readonly spill: { readonly pointer: number; readonly offset: number };
}
/**
 * Reduction by an associative operation. At the end of a block accumulators pass through memory: stores of neighbours are what V8 starts from when it joins pairs of
 * vectors (MLX_WASM_REVEC).
 */
export class Fold implements Reducer {
  private readonly c: Code;
  private readonly rule: RowRule;
  private readonly type: ScalarType;
  private readonly x: readonly number[];
  private readonly total: number;
  private readonly identity: number;
  /** Float extremes: the fast instruction passes NaN over, so NaN are noted. */
  private readonly nan: number | undefined;
  private readonly nans: readonly number[];
  private readonly zero: number;
  /** An element may count in several lanes and in any order, so that what is left of a row goes to the lanes of the total; these are combined last. */
  private readonly anyOrder: boolean;
  private readonly spill: FoldPlaces["spill"];
  constructor(c: Code, rule: RowRule, type: ScalarType, { identity, zero, spill }: FoldPlaces, newVector: () => number) {
    this.c = c;
    this.rule = rule;
    this.type = type;
    this.identity = identity;
    this.zero = zero;
    this.anyOrder = rule !== "sum" && rule !== "prod";
    this.spill = spill;
    this.x = Array.from({ length: 4 }, newVector);
    this.total = newVector();
    const extreme = isFloatType(type) && (rule === "max" || rule === "min");
    this.nan = extreme ? newVector() : undefined;
    this.nans = extreme ? Array.from({ length: 4 }, newVector) : [];
  }
  private copy(to: number, from: number): void {
    this.c.get(from);
    this.c.set(to);
  }
  private into(to: number, a: Push, b: Push): void {
    combine(this.c, this.rule, this.type, a, b);
    this.c.set(to);
  }
  private readonly local = (l: number): Push => () => this.c.get(l);
  start(): void {
    this.copy(this.total, this.identity);
    if (this.nan !== undefined) this.copy(this.nan, this.zero);
  }
  startBlock(): void {
    for (const x of this.x) this.copy(x, this.identity);
    for (const x of this.nans) this.copy(x, this.zero);
  }
  round(at: number, y: number): void {
    const { c, type } = this;
    const x = this.x[at] as number;
    const nan = this.nans[at];
    if (nan === undefined) {
      this.into(x, this.local(x), this.local(y));
      return;
    }
    c.get(x);
    c.get(y);
    c.simd((this.rule === "max" ? pseudoGreatest : pseudoLeast)[type] as number);
    c.set(x);
    c.get(nan);
    c.get(y);
    c.get(y);
    c.simd(notEqual[type] as number);
    c.simd(simd.or);
    c.set(nan);
  }
  endRound(): void {}
  endBlock(): void {
    this.throughMemory(this.x);
    this.throughMemory(this.nans);
    for (const x of this.nans) {
      this.c.get(x);
      this.c.get(this.nan as number);
      this.c.simd(simd.or);
      this.c.set(this.nan as number);
    }
    const [a, b, p, q] = this.x as [number, number, number, number];
    this.into(a, this.local(a), this.local(b));
    this.into(p, this.local(p), this.local(q));
    this.into(a, this.local(a), this.local(p));
    this.into(this.total, this.local(this.total), this.local(a));
  }
  private throughMemory(locals: readonly number[]): void {
    const { c, spill: { pointer, offset } } = this;
    locals.forEach((local, i) => {
      c.get(pointer);
      c.get(local);
      c.simd(simd.store);
      c.offset(offset + 16 * i);
    });
    locals.forEach((local, i) => {
      c.get(pointer);
      c.simd(simd.load);
      c.offset(offset + 16 * i);
      c.set(local);
    });
  }
  endRounds(): void {
    if (!this.anyOrder) this.combineLanes();
  }
  private combineLanes(): void {
    const { c, type, total, nan } = this;
    const lane = (i: number): Push => () => splatLane(c, this.local(total), type, i);
    const [a, b] = this.x as [number, number];
    if (isWide(type)) this.into(total, lane(0), lane(1));
    else {
      this.into(a, lane(0), lane(1));
      this.into(b, lane(2), lane(3));
      this.into(total, this.local(a), this.local(b));
    }
    if (nan === undefined) return;
    c.v128(constBytes(expr.const(type, Number.NaN)));
    c.get(total);
    c.get(nan);
    c.simd(simd.any_true);
    c.op(op.select);
    c.set(total);
  }
  four(ys: readonly number[]): void {
    if (this.anyOrder) {
      for (const y of ys) this.one(y);
      return;
    }
    const lanes = isWide(this.type) ? 2 : 4;
    for (const y of ys) for (let i = 0; i < lanes; i++) this.into(this.total, this.local(this.total), () => splatLane(this.c, this.local(y), this.type, i));
  }
  one(y: number): void {
    this.into(this.total, this.local(this.total), this.local(y));
  }
  finish(): number {
    if (this.anyOrder) this.combineLanes();
    return this.total;
  }
}

/** Number of the first of the greatest (least) elements; of 4-byte types. A NaN counts only as the first element, which then wins. */
export class FirstBest implements Reducer {
  private readonly c: Code;
  private readonly type: ScalarType;
  private readonly better: number;
  private readonly identity: number;
  private readonly best: readonly number[];
  private readonly at: readonly number[];
  /** Numbers of the next four elements. */
  private readonly next: number;
  private readonly offsets: readonly number[];
  private readonly mask: number;
  /** All bits set when the first element is a NaN. */
  private readonly first: number;
  constructor(c: Code, rule: RowRule, type: ScalarType, identity: number, offsets: readonly number[], newVector: () => number) {
    this.c = c;
    this.type = type;
    this.better = (rule === "argmax" ? above : below)[type] as number;
    this.identity = identity;
    this.offsets = offsets;
    this.best = Array.from({ length: 4 }, newVector);
    this.at = Array.from({ length: 4 }, newVector);
    this.next = newVector();
    this.mask = newVector();
    this.first = newVector();
  }
  /** Offset constants of the four accumulators, and of the step to the next round. */
  static readonly constants: readonly (readonly number[])[] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 16, 16, 16], [4, 4, 4, 4], [1, 1, 1, 1]];
  private add(to: number, a: number, offset: number): void {
    this.c.get(a);
    this.c.get(this.offsets[offset] as number);
    this.c.simd(adds.i32 as number);
    this.c.set(to);
  }
  /** Looks at the first element, which lies in all lanes of `y`. */
  begin(y: number): void {
    this.c.get(y);
    this.c.get(y);
    this.c.simd(isFloatType(this.type) ? (notEqual[this.type] as number) : simd.xor);
    this.c.set(this.first);
  }
  start(): void {
    const { c } = this;
    for (let k = 0; k < 4; k++) {
      c.get(this.identity);
      c.set(this.best[k] as number);
      c.get(this.offsets[k] as number);
      c.set(this.at[k] as number);
    }
    c.get(this.offsets[0] as number);
    c.set(this.next);
  }
  startBlock(): void {}
  round(k: number, y: number): void {
    this.take(k, y, () => {
      this.c.get(this.next);
      if (k === 0) return;
      // next holds the numbers of the first four
      this.c.i32(4 * k);
      this.c.simd(simd.i32x4_splat);
      this.c.simd(adds.i32 as number);
    });
  }
  private take(k: number, y: number, numbers: Push): void {
    const { c, mask } = this;
    const best = this.best[k] as number;
    const at = this.at[k] as number;
    c.get(y);
    c.get(best);
    c.simd(this.better);
    c.set(mask);
    c.get(y);
    c.get(best);
    c.get(mask);
    c.simd(simd.bitselect);
    c.set(best);
    numbers();
    c.get(at);
    c.get(mask);
    c.simd(simd.bitselect);
    c.set(at);
  }
  endRound(): void {
    this.add(this.next, this.next, 4);
  }
  endBlock(): void {}
  endRounds(): void {}
  four([y]: readonly number[]): void {
    this.take(0, y as number, () => this.c.get(this.next));
    this.add(this.next, this.next, 5);
  }
  one(y: number): void {
    this.take(0, y, () => splatLane(this.c, () => this.c.get(this.next), "i32", 0));
    this.add(this.next, this.next, 6);
  }
  /** best[0] and at[0] become the better of the two, the first of equals. */
  private merge(other: Push, otherAt: Push): void {
    const { c, mask } = this;
    const best = this.best[0] as number;
    const at = this.at[0] as number;
    other();
    c.get(best);
    c.simd(this.better);
    other();
    c.get(best);
    c.simd(equal32[this.type] as number);
    otherAt();
    c.get(at);
    c.simd(i32Below);
    c.simd(simd.and);
    c.simd(simd.or);
    c.set(mask);
    other();
    c.get(best);
    c.get(mask);
    c.simd(simd.bitselect);
    otherAt();
    c.get(at);
    c.get(mask);
    c.simd(simd.bitselect);
    c.set(at);
    c.set(best);
  }
  finish(): number {
    const { c } = this;
    const get = (l: number): Push => () => c.get(l);
    for (let k = 1; k < 4; k++) this.merge(get(this.best[k] as number), get(this.at[k] as number));
    const [x, i] = [this.best[1] as number, this.at[1] as number];
    for (const lanes of [2, 1]) {
      rotated(c, get(this.best[0] as number), lanes);
      c.set(x);
      rotated(c, get(this.at[0] as number), lanes);
      c.set(i);
      this.merge(get(x), get(i));
    }
    c.get(this.at[0] as number);
    c.get(this.first);
    c.simd(simd.andnot);
    c.set(this.next);
    return this.next;
  }
}
