/**
 * Recorded evaluations: the command lists of a computation are kept and run again, with no graph, no planning and no allocation. What changes from
 * run to run (a token, a position, a length) lies in arrays that kernels read when they run, and that the caller overwrites in between.
 */
import { type ArrayDesc, type MxArray, hostBytes } from "../core/array.ts";
import { env } from "../core/env.ts";
import { opError } from "../core/error.ts";
import { wasmBackend } from "../backend/wasm/index.ts";
import { storeNumbers } from "../ops/convert.ts";
import { type Kept, releaseKept } from "./record.ts";
import { descsOf, evaluate } from "./run.ts";

/** A computation that can run again over the same arrays. Its results are overwritten by each run. */
export class Recording {
  private readonly kept: Kept;
  /** Number of runs after the first. */
  runs = 0;
  private constructor(kept: Kept) {
    this.kept = kept;
  }
  /**
   * Evaluates the trees, like `eval`, and keeps the command lists. Everything that is not yet evaluated in them will be computed again by `run`:
   * from the same input arrays, into the same results. Arrays that are updated in place (a cache) must have no other user.
   */
  static evaluate(...trees: unknown[]): Recording {
    const kept: Kept = { lists: [], storages: [], refused: undefined };
    try {
      evaluate(descsOf(trees), false, kept);
    } catch (error) {
      releaseKept(kept);
      throw error;
    }
    return new Recording(kept);
  }
  /** False with MLX_REPLAY=0 or MLX_CHECK=1: callers then evaluate again instead of recording. */
  static get enabled(): boolean {
    return env("MLX_REPLAY") && !env("MLX_CHECK");
  }
  /** Why this computation can not run again; undefined when it can. */
  get refused(): string | undefined {
    return this.kept.refused;
  }
  /** Computes everything again and waits. */
  run(): void {
    if (this.kept.refused !== undefined) throw opError("Recording", `can not run again: ${this.kept.refused}`);
    if (this.kept.lists.length === 0) throw opError("Recording", "was disposed");
    const { pool } = wasmBackend();
    for (const list of this.kept.lists) pool.run(list);
    this.runs++;
  }
  /** Runs all commands one by one, `runs` times, and gives the number of commands and the milliseconds of one run by kernel. */
  profile(runs = 10): Map<string, { commands: number; ms: number }> {
    const { pool, memory } = wasmBackend();
    const words = new Int32Array(memory.memory.buffer, 0, Math.floor(memory.memory.buffer.byteLength / 4));
    const found = new Map<string, { commands: number; ms: number }>();
    for (let run = 0; run < runs; run++) {
      for (const list of this.kept.lists) {
        for (let at = list.start; at !== list.end; at = (words[at / 4 + 4] as number) >>> 0) {
          const name = pool.modules.nameOf(words[at / 4] as number);
          const row = found.get(name) ?? { commands: 0, ms: 0 };
          const start = performance.now();
          pool.run({ start: at, end: (words[at / 4 + 4] as number) >>> 0 });
          row.ms += (performance.now() - start) / runs;
          row.commands += 1 / runs;
          found.set(name, row);
        }
      }
    }
    return found;
  }
  /** Gives the buffers back. Results that are still in use stay valid. */
  dispose(): void {
    releaseKept(this.kept);
  }
}

/** Overwrites the elements of an evaluated, contiguous array, so that recordings that read it see the new values. Needs as many values as elements. */
export function overwrite(a: MxArray, values: { readonly [i: number]: number; readonly length: number }): void {
  const d: ArrayDesc = a.desc;
  if (!d.storage || !d.contiguous) throw opError("overwrite", "needs an evaluated, contiguous array");
  if (values.length !== d.size) throw opError("overwrite", `needs ${d.size} values, got ${values.length}`);
  d.epoch?.wait();
  storeNumbers(hostBytes(d), d.dtype, d.size, (i) => values[i] as number);
}
