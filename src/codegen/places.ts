/** Code that finds what a unit of work of a generated kernel is, shared by elementwise and row kernels: its row, its chunk of the row, and where the inputs of the row begin. */
import { type Code, op } from "./wasm.ts";

/** The local that holds the address of the argument words. */
const pArgs = 0;

/** Loads an argument word into a local. */
export function loadWord(c: Code, word: number, local: number): void {
  c.get(pArgs);
  c.op(op.i32_load);
  c.offset(4 * word);
  c.set(local);
}

/** Locals by what they hold. */
export interface UnitLocals {
  readonly unit: number;
  readonly size: number;
  readonly chunk: number;
  readonly row: number;
  readonly rest: number;
  readonly index: number;
  readonly at: number;
  readonly count: number;
}

/** row = unit / chunks, at = unit % chunks * chunk, count = min(chunk, size - at); argument word `chunks` is the number of chunks in a row. */
export function placeChunk(c: Code, l: Omit<UnitLocals, "index">, chunks: number): void {
  loadWord(c, chunks, l.rest);
  c.get(l.unit);
  c.get(l.unit);
  c.get(l.rest);
  c.op(op.i32_div_u);
  c.tee(l.row);
  c.get(l.rest);
  c.op(op.i32_mul, op.i32_sub);
  c.get(l.chunk);
  c.op(op.i32_mul);
  c.set(l.at);
  c.get(l.chunk);
  c.get(l.size);
  c.get(l.at);
  c.op(op.i32_sub);
  c.tee(l.count);
  c.get(l.chunk);
  c.get(l.count);
  c.op(op.i32_lt_u, op.select);
  c.set(l.count);
}

/** Inputs of a kernel: number of dimensions around the row, where their sizes (but the first's) and the inputs' strides lie among the words, how each input is read. */
export interface RowInputs {
  readonly outer: number;
  readonly dims: number;
  readonly strides: number;
  readonly access: readonly string[];
  /** The local that points to the start of an input's row. */
  base(input: number): number;
}
/** Input pointers to the start of a row: an odometer over the outer dimensions, last first. Inputs that are read once stay where they are. */
export function placeRow(c: Code, l: Pick<UnitLocals, "row" | "rest" | "index">, { outer, dims, strides, access, base }: RowInputs): void {
  const inputs = access.flatMap((m, i) => (m === "once" ? [] : [i]));
  for (const i of inputs) loadWord(c, i, base(i));
  c.get(l.row);
  c.set(l.rest);
  for (let d = outer - 1; d >= 0; d--) {
    let index = l.rest;
    if (d > 0) {
      // index = rest % dim, rest = rest / dim
      loadWord(c, dims + d - 1, l.index);
      c.get(l.rest);
      c.get(l.rest);
      c.get(l.index);
      c.op(op.i32_div_u);
      c.tee(l.rest);
      c.get(l.index);
      c.op(op.i32_mul, op.i32_sub);
      c.set(l.index);
      index = l.index;
    }
    inputs.forEach((i, k) => {
      c.get(base(i));
      c.get(index);
      c.get(pArgs);
      c.op(op.i32_load);
      c.offset(4 * (strides + k * outer + d));
      c.op(op.i32_mul, op.i32_add);
      c.set(base(i));
    });
  }
}
